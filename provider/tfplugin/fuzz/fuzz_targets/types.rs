//! See `tfplugin::fuzzing::types`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tfplugin::fuzzing::types(bytes));
