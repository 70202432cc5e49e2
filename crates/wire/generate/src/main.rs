//! Compiles `proto/` to `src/generated/`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let descriptors = protox::compile(["open_inference.proto"], [here.join("proto")])?;
    let out = here.join("src/generated");
    std::fs::create_dir_all(&out)?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .codec_path("crate::codec::BoundedCodec")
        .bytes(".")
        .btree_map(".")
        .emit_rerun_if_changed(false)
        .out_dir(out)
        .compile_fds(descriptors)?;
    Ok(())
}
