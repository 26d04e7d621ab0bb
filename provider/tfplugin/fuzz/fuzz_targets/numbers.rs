//! See `tfplugin::fuzzing::numbers`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tfplugin::fuzzing::numbers(bytes));
