use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A text with a meaning, which the schema names and `load` parses.
macro_rules! text {
    ($name:ident, $title:literal, $example:literal) => {
        #[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
        #[serde(transparent)]
        #[schemars(inline, extend("title" = $title, "examples" = [$example]))]
        pub struct $name(pub String);

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
    };
}

text!(DurationText, "a duration", "5m");
text!(FileText, "a path", "secrets/lookup-client");
text!(UrlText, "a URL", "https://login.example.com");
text!(JsonPathText, "a JSONPath", "$.tenants[*].code");
text!(PointerText, "a JSON Pointer", "/tenants");
text!(TemplateText, "a route template", "/api/{tenant}/**");
