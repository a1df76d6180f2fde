//! The program's allocator. Embedders of the library choose their own.
//!
//! A burst of opening handshakes takes tens of KiB each and gives all of it back, but in between stand sessions that stay:
//! the C library's allocator then keeps about half as much again as thousands of idle sessions need. jemalloc keeps sizes
//! apart, and gives unused pages back to the kernel after a second.
#![cfg(all(target_os = "linux", target_env = "gnu"))]
#![allow(unsafe_code)]

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// jemalloc's options, which it reads from this symbol before `main`. A thread of its own gives pages back, since a gateway
/// whose sessions are all idle allocates nothing that would remind it to. A thread's cache is looked through after each MiB
/// rather than each 64 KiB, which was once for each opening handshake.
// SAFETY: the name is the one that jemalloc declares, weakly, for exactly this, and its type is a pointer to a C string.
#[unsafe(export_name = "_rjem_malloc_conf")]
static OPTIONS: &std::ffi::CStr =
    c"tcache_gc_incr_bytes:1048576,background_thread:true,max_background_threads:1,dirty_decay_ms:1000,muzzy_decay_ms:0";
