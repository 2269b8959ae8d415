//! A target under libFuzzer, which sees by coverage which changes lead somewhere new. The variable `FUZZ_TARGET` names the target.
//!
//! Only built with `--cfg fuzzing`; see `CONTRIBUTING.md` for the whole command.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod guided {
    use std::sync::OnceLock;

    use fuzz::Target;
    use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

    fn target() -> &'static Target {
        static TARGET: OnceLock<Target> = OnceLock::new();
        TARGET.get_or_init(|| {
            let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
            fuzz::target(&name).unwrap_or_else(|| panic!("FUZZ_TARGET names no target: {name:?}"))
        })
    }

    fuzz_target!(|input: &[u8]| (target().run)(input));

    fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
        let size = fuzzer_mutate(data, size, max_size);
        if seed % 8 != 0 {
            (target().mend)(&mut data[..size]);
        }
        size
    });
}

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    #[expect(clippy::print_stderr, reason = "a command for people")]
    {
        eprintln!("built without --cfg fuzzing, there is nothing to guide; see CONTRIBUTING.md");
    }
    std::process::ExitCode::FAILURE
}
