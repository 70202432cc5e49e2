//! The shim alone, for the tests.

fn main() -> std::process::ExitCode {
    avocet_runtimes::shim_main()
}
