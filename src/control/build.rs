//! Compiles the protocol, without a compiler that isn't Rust.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=control.proto");
    let descriptors = protox::compile(["control.proto"], ["."])?;
    tonic_prost_build::configure()
        .build_client(cfg!(feature = "client"))
        .build_server(cfg!(feature = "server"))
        .build_transport(false)
        .compile_fds(descriptors)?;
    Ok(())
}
