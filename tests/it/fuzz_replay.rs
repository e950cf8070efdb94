//! Every input that the fuzz targets keep, through the same functions on the stable toolchain.

use std::fs;
use std::path::Path;

use super::targets::TARGETS;

#[test]
fn every_kept_input_of_every_target_holds() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in TARGETS {
        let dir = corpus.join(name);
        let files = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        let mut inputs = 0;
        for file in files {
            let path = file.unwrap().path();
            println!("{}", path.display());
            target(&fs::read(&path).unwrap());
            inputs += 1;
        }
        assert!(inputs >= 5, "{name} keeps only {inputs} inputs");
    }
}
