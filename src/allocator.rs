//! The program's allocator. Embedders of the library choose their own.
//!
//! A burst of opening handshakes takes tens of KiB each and gives all of it back, but in between stand sessions that stay:
//! the C library's allocator then keeps about half as much again as thousands of idle sessions need. jemalloc keeps sizes
//! apart, and gives unused pages back to the kernel after a second.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(unsafe_code)]

use std::{ffi::c_int, ptr};
use tikv_jemalloc_sys::mallctl;
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// jemalloc's options, which it reads from this symbol before `main`. A thread of its own gives pages back, since a gateway
/// whose sessions are all idle allocates nothing that would remind it to. A thread's cache is looked through after each MiB
/// rather than each 64 KiB, which was once for each opening handshake; and it keeps 128 blocks of 8 KiB rather than 20, since
/// a handshake takes seven of them: the others were split from pages and merged again each time.
// SAFETY: the name is the one that jemalloc declares, weakly, for exactly this, and its type is a pointer to a C string.
#[unsafe(export_name = "_rjem_malloc_conf")]
static OPTIONS: &std::ffi::CStr = c"tcache_gc_incr_bytes:1048576,tcache_ncached_max:8192-8192:128,\
    background_thread:true,max_background_threads:1,dirty_decay_ms:1000,muzzy_decay_ms:0";

/// Has workers empty their caches when no handshake needs them.
pub(crate) fn give_back_when_calm() {
    pulsegate::worker::when_calm(|| {
        // It fails where an operator's own options say that threads have no caches: then there is nothing to empty.
        empty_cache();
    });
}

/// Gives back what this thread's cache holds; 0 if there is one.
fn empty_cache() -> c_int {
    let nothing = ptr::null_mut();
    // SAFETY: the name is a C string, and this one has neither an old value nor a new one.
    unsafe { mallctl(c"thread.tcache.flush".as_ptr(), nothing, ptr::null_mut(), nothing, 0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allocator_knows_what_it_is_asked_for() {
        // What it does not know it only complains of, and starts.
        let (mut kept, mut size, mut length) = (0_usize, 8192_usize, size_of::<usize>());
        let name = c"thread.tcache.ncached_max.read_sizeclass".as_ptr();
        // SAFETY: the old value and the new one are each a `usize`, of this length.
        let failed = unsafe { mallctl(name, (&raw mut kept).cast(), &mut length, (&raw mut size).cast(), length) };
        assert_eq!((failed, kept), (0, 128));
        assert_eq!(empty_cache(), 0);
    }
}
