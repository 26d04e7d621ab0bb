//! See `tfplugin::fuzzing::plan`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tfplugin::fuzzing::plan(bytes));
