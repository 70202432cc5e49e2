#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = avocet_schema::duplicate_fields(bytes);
    let Ok(manifest) = serde_json::from_slice::<serde_json::Value>(bytes) else { return };
    for info in avocet_types::kinds() {
        let mut pruned = manifest.clone();
        if let Some(schema) = avocet_schema::schema_of(info) {
            schema.prune(&mut pruned);
        }
        let _ = avocet_schema::complete(info, pruned, Some(&manifest));
    }
});
