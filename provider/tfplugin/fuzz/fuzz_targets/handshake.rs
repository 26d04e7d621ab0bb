//! See `tfplugin::fuzzing::handshake`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tfplugin::fuzzing::handshake(bytes));
