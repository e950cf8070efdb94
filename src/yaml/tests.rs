use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::*;

/// `file` is the name that problems show where no field can be named.
fn parse<T: DeserializeOwned + JsonSchema>(file: &str, text: &str) -> Result<T, Vec<Problem>> {
    match check(file, text) {
        Checked { value: Some(value), problems, .. } if problems.is_empty() => Ok(value),
        Checked { problems, .. } => Err(problems),
    }
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"]))]
pub struct Garden {
    /// The name over the gate. Nobody reads on.
    name: Option<String>,
    size: Option<u8>,
    beds: Option<Vec<Option<Bed>>>,
    watering: Option<Watering>,
    labels: Option<BTreeMap<String, Option<Label>>>,
}

#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Bed {
    plants: Option<u32>,
    kind: Option<Kind>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
enum Kind {
    /// To eat.
    Vegetables,
    /// To look at.
    Flowers,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
enum Watering {
    Never(Never),
    Planned(Bed),
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Never {
    Never,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
enum Label {
    Text(String),
    Long(Bed),
}

fn lines(text: &str) -> Vec<String> {
    let problems = check::<Garden>("garden.yaml", text).problems;
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn what_fits_is_read() {
    let garden: Garden = parse("g", "name: a\nbeds: [{kind: flowers}]\nwatering: never").unwrap();
    assert_eq!(garden.beds.unwrap()[0].as_ref().unwrap().kind, Some(Kind::Flowers));
    assert!(matches!(garden.watering, Some(Watering::Never(Never::Never))));
}

#[test]
fn each_kind_of_problem_names_its_field_and_the_cure() {
    for (text, line) in [
        ("name: a\nsizes: 1", "sizes: unknown key; did you mean `size`?"),
        ("size: 1", "name: missing; add it: The name over the gate"),
        ("name: 5", "name: must be a text; this is a number"),
        ("name:", "name: empty; give a text, or remove the key"),
        ("name: a\nbeds: {}", "beds: must be a list; this is a mapping"),
        (
            "name: a\nbeds: [{plants: many}]",
            "beds[0].plants: must be a whole number, at least 0; this is another text",
        ),
        (
            "name: a\nbeds: [{kind: flower}]",
            "beds[0].kind: must be `vegetables` or `flowers`; did you mean `flowers`?",
        ),
        (
            "name: a\nwatering: nevr",
            "watering: must be `never` or a mapping (key: value); did you mean `never`?",
        ),
        (
            "name: a\nwatering: {plants: []}",
            "watering.plants: must be a whole number, at least 0; this is a list",
        ),
        (
            "name: a\nwatering: {when: 5}",
            "watering.when: unknown key; remove it, known here are `kind`, `plants`",
        ),
        (
            "name: a\nlabels: {x: 5}",
            "labels.x: must be a text or a mapping (key: value); this is a number",
        ),
        ("name: a\nsize: 70000", "size: must be a whole number from 0 to 255; this is a number"),
        ("name: a\nsize: 5.0", "size: out of range or of the wrong kind; correct it"),
        ("[]", "garden.yaml: must be a mapping (key: value); this is a list"),
        ("- name: a", "garden.yaml: must be a mapping (key: value); this is a list"),
        ("5", "garden.yaml: must be a mapping (key: value); this is a number"),
        ("", "garden.yaml: empty; give a mapping (key: value), or remove the key"),
    ] {
        assert_eq!(lines(text), [line], "{text}");
    }
}

#[test]
fn text_that_is_not_yaml_is_told_with_line_and_column() {
    let twice = lines("name: a\nsize: 1\nname: b");
    assert_eq!(twice, ["garden.yaml:3:1: the key `name` appears a second time; keep one of them"]);
    let broken = lines("name: [a\nsize: 1");
    assert_eq!(broken.len(), 1);
    assert!(broken[0].starts_with("garden.yaml:2:"), "{broken:?}");
}

#[test]
fn the_sound_parts_of_a_broken_text_are_read() {
    let text = "nam: a\nbeds: [5, {plants: x, kind: flowers}]\nwatering: {plants: 3}";
    let checked = check::<Garden>("g", text);
    assert_eq!(checked.problems.len(), 4);
    let garden = checked.value.unwrap();
    let beds = garden.beds.unwrap();
    assert!(beds[0].is_none());
    assert_eq!(beds[1].as_ref().unwrap().kind, Some(Kind::Flowers));
    assert!(matches!(garden.watering, Some(Watering::Planned(Bed { plants: Some(3), .. }))));
}

#[test]
fn values_never_show() {
    let texts = [
        "name: a\nbeds: [{kind: hunter2}]",
        "name: a\nbeds: hunter2",
        "name: [hunter2\nb: c",
        "name: a\nbeds: [{plants: hunter2, watering: \"hunter2\"}]",
        "name: \"hunter2\\q\"",
    ];
    for text in texts {
        let lines = lines(text).join("\n");
        assert!(!lines.is_empty() && !lines.contains("hunter2"), "{lines}");
    }
}
