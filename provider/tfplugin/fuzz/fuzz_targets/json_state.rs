//! See `tfplugin::fuzzing::json_state`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tfplugin::fuzzing::json_state(bytes));
