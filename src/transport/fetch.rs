//! Asks for memory before it is needed.
#![allow(unsafe_code)]

/// Has the processor fetch a value, all of it at once, while other work goes on. Among many sessions each finds itself out of
/// the nearest cache, and would wait for one line of 64 bytes after the other.
#[inline(always)]
pub(crate) fn fetch<T>(value: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let start = std::ptr::from_ref(value).cast::<i8>();
        for line in 0..size_of::<T>().div_ceil(64) {
            // SAFETY: a hint, which never faults and changes nothing, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(64 * line)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = value;
}
