#![no_main]

use std::sync::LazyLock;

use avocet_inference::{EngineOptions, Engines};

static ENGINES: LazyLock<Engines> = LazyLock::new(|| Engines::discover(&EngineOptions::default()));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let place = std::env::temp_dir().join(format!("avocet-fuzz-{}", std::process::id()));
    avocet_inference::fuzzing::models(&ENGINES, &place, bytes);
});
