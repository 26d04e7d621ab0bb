//! See `tfplugin::fuzzing::msgpack`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tfplugin::fuzzing::msgpack(bytes));
