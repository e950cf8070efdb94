//! Envoy's dynamic module ABI, as far as an HTTP filter needs it, declared by hand: no package in
//! the registry has it. It is that of Envoy 1.38 to 1.40; an older Envoy refuses the library. All
//! that is `unsafe` is here.
//!
//! What Envoy calls must not unwind into it: every hook with work in it catches panics. A request
//! that panics gets 503; a config that panics is refused.

#![expect(unsafe_code, reason = "the border to Envoy")]

use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use smallvec::SmallVec;
use tenantgate::authz::{HeaderValue, Headers};
use tracing::Level;

use crate::config::{self, FilterConfig, RouteConfig};
use crate::filter::{Counters, Filter, Host, Outcome};
use crate::logs;

/// The version of the ABI that this was written for. Another one on Envoy's side is only a warning
/// there.
const VERSION: &CStr = c"v0.2.0";

/// The kind of header map: that of the request.
const REQUEST_HEADERS: u32 = 0;
const CONTINUE: u32 = 0;
const STOP: u32 = 1;

/// Bytes of either side. Envoy's are good until the hook returns, or until a setter is called.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Buffer {
    ptr: *const u8,
    length: usize,
}

#[repr(C)]
struct Header {
    key_ptr: *const u8,
    key_length: usize,
    value_ptr: *const u8,
    value_length: usize,
}

/// Envoy's own objects: its filter, or the config of one.
type EnvoyPtr = *mut c_void;

unsafe extern "C" {
    fn envoy_dynamic_module_callback_log(level: u32, message: Buffer);
    fn envoy_dynamic_module_callback_log_enabled(level: u32) -> bool;
    fn envoy_dynamic_module_callback_get_most_specific_route_config(
        filter: EnvoyPtr,
    ) -> *const c_void;
    fn envoy_dynamic_module_callback_http_get_headers_size(filter: EnvoyPtr, kind: u32) -> usize;
    fn envoy_dynamic_module_callback_http_get_headers(
        filter: EnvoyPtr,
        kind: u32,
        result: *mut Header,
    ) -> bool;
    fn envoy_dynamic_module_callback_http_add_header(
        filter: EnvoyPtr,
        kind: u32,
        key: Buffer,
        value: Buffer,
    ) -> bool;
    fn envoy_dynamic_module_callback_http_set_header(
        filter: EnvoyPtr,
        kind: u32,
        key: Buffer,
        value: Buffer,
    ) -> bool;
    fn envoy_dynamic_module_callback_http_send_response(
        filter: EnvoyPtr,
        status: u32,
        headers: *const Header,
        headers_length: usize,
        body: Buffer,
        details: Buffer,
    );
    fn envoy_dynamic_module_callback_http_set_dynamic_metadata_string(
        filter: EnvoyPtr,
        namespace: Buffer,
        key: Buffer,
        value: Buffer,
    );
    fn envoy_dynamic_module_callback_http_filter_config_define_counter(
        config: EnvoyPtr,
        name: Buffer,
        labels: *const Buffer,
        labels_length: usize,
        id: *mut usize,
    ) -> u32;
    fn envoy_dynamic_module_callback_http_filter_increment_counter(
        filter: EnvoyPtr,
        id: usize,
        labels: *const Buffer,
        labels_length: usize,
        value: u64,
    ) -> u32;
}

impl Buffer {
    const NONE: Self = Self { ptr: ptr::null(), length: 0 };

    fn of(bytes: &[u8]) -> Self {
        Self { ptr: bytes.as_ptr(), length: bytes.len() }
    }

    /// # Safety
    /// Envoy lent this buffer, and it is still good for as long as `'a`.
    unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.ptr.is_null() || self.length == 0 {
            return &[];
        }
        // SAFETY: the caller vouches for it.
        unsafe { std::slice::from_raw_parts(self.ptr, self.length) }
    }
}

/// A request in Envoy, within one hook.
struct Stream {
    envoy: EnvoyPtr,
    /// Asked for once: a question for one header makes Envoy build an index of them all.
    headers: SmallVec<[Header; 32]>,
}

impl Stream {
    /// # Safety
    /// Envoy gave the pointer to the hook that runs.
    unsafe fn new(envoy: EnvoyPtr) -> Self {
        // SAFETY: the caller vouches for the pointer.
        let size =
            unsafe { envoy_dynamic_module_callback_http_get_headers_size(envoy, REQUEST_HEADERS) };
        let mut headers = SmallVec::with_capacity(size);
        // SAFETY: as above; there is room for as many as Envoy has just said, and nothing has
        // changed them since.
        unsafe {
            let into = headers.as_mut_ptr();
            if envoy_dynamic_module_callback_http_get_headers(envoy, REQUEST_HEADERS, into) {
                headers.set_len(size);
            }
        }
        Self { envoy, headers }
    }
}

impl Header {
    fn name(&self) -> &[u8] {
        // SAFETY: good until a header is set, and the filter reads before it sets (it copies the
        // path).
        unsafe { Buffer { ptr: self.key_ptr, length: self.key_length }.bytes() }
    }

    fn value(&self) -> &[u8] {
        // SAFETY: as above.
        unsafe { Buffer { ptr: self.value_ptr, length: self.value_length }.bytes() }
    }
}

impl Headers for Stream {
    fn get(&self, name: &str) -> HeaderValue<'_> {
        let mut found = self.headers.iter().filter(|header| header.name() == name.as_bytes());
        match (found.next(), found.next()) {
            (None, _) => HeaderValue::Missing,
            (Some(header), None) => HeaderValue::One(header.value()),
            (Some(_), Some(_)) => HeaderValue::Several,
        }
    }
}

impl Host for Stream {
    fn add_header(&self, name: &str, value: &str) {
        let (key, value) = (Buffer::of(name.as_bytes()), Buffer::of(value.as_bytes()));
        // SAFETY: Envoy gave the pointer to the hook that runs, and copies both texts.
        unsafe {
            envoy_dynamic_module_callback_http_add_header(self.envoy, REQUEST_HEADERS, key, value);
        }
    }

    fn set_header(&self, name: &str, value: &str) {
        let (key, value) = (Buffer::of(name.as_bytes()), Buffer::of(value.as_bytes()));
        // SAFETY: as above.
        unsafe {
            envoy_dynamic_module_callback_http_set_header(self.envoy, REQUEST_HEADERS, key, value);
        }
    }

    fn remove_header(&self, name: &str) {
        let key = Buffer::of(name.as_bytes());
        // SAFETY: as above; a null value removes.
        unsafe {
            envoy_dynamic_module_callback_http_set_header(
                self.envoy,
                REQUEST_HEADERS,
                key,
                Buffer::NONE,
            );
        }
    }

    fn set_metadata(&self, namespace: &str, key: &str, value: &str) {
        let [namespace, key, value] =
            [namespace, key, value].map(|text| Buffer::of(text.as_bytes()));
        // SAFETY: as above; Envoy copies all three.
        unsafe {
            envoy_dynamic_module_callback_http_set_dynamic_metadata_string(
                self.envoy, namespace, key, value,
            );
        }
    }

    fn reply(&self, status: u16, headers: &[(&str, &str)], body: &str, details: &str) {
        let headers: Vec<Header> = headers
            .iter()
            .map(|(key, value)| Header {
                key_ptr: key.as_ptr(),
                key_length: key.len(),
                value_ptr: value.as_ptr(),
                value_length: value.len(),
            })
            .collect();
        let (body, details) = (Buffer::of(body.as_bytes()), Buffer::of(details.as_bytes()));
        // SAFETY: as above; Envoy copies everything before it returns.
        unsafe {
            envoy_dynamic_module_callback_http_send_response(
                self.envoy,
                status.into(),
                headers.as_ptr(),
                headers.len(),
                body,
                details,
            );
        }
    }

    fn count(&self, counter: usize) {
        // SAFETY: the id is one that Envoy gave for this filter's config.
        unsafe {
            envoy_dynamic_module_callback_http_filter_increment_counter(
                self.envoy,
                counter,
                ptr::null(),
                0,
                1,
            );
        }
    }
}

/// Envoy's number of a level.
fn number(level: Level) -> u32 {
    match level {
        Level::TRACE => 0,
        Level::DEBUG => 1,
        Level::INFO => 2,
        Level::WARN => 3,
        Level::ERROR => 4,
    }
}

pub fn log_enabled(level: Level) -> bool {
    // SAFETY: takes a number, from any thread.
    unsafe { envoy_dynamic_module_callback_log_enabled(number(level)) }
}

pub fn log(level: Level, line: &[u8]) {
    // SAFETY: Envoy copies the line; its log takes lines of any thread.
    unsafe { envoy_dynamic_module_callback_log(number(level), Buffer::of(line)) }
}

/// The value that `work` made, on the heap, or null: Envoy refuses the config then.
fn made<T>(work: impl FnOnce() -> Result<T, String>) -> *const T {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(value)) => Box::into_raw(Box::new(value)),
        Ok(Err(wrong)) => {
            tracing::error!("{wrong}");
            ptr::null()
        }
        // The panic hook has said where.
        Err(_) => ptr::null(),
    }
}

/// # Safety
/// `made` is the only source of such pointers, and Envoy destroys each once.
unsafe fn destroy<T>(made: *mut T) {
    if !made.is_null() {
        // SAFETY: the caller vouches for it.
        let value = unsafe { Box::from_raw(made) };
        let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
    }
}

fn define_counter(config: EnvoyPtr, name: &str) -> Result<usize, String> {
    let mut id = 0;
    // SAFETY: Envoy gave the pointer to the hook that runs.
    let result = unsafe {
        envoy_dynamic_module_callback_http_filter_config_define_counter(
            config,
            Buffer::of(name.as_bytes()),
            ptr::null(),
            0,
            &mut id,
        )
    };
    if result == 0 { Ok(id) } else { Err(format!("Envoy gave no counter {name}: {result}")) }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_program_init() -> *const c_char {
    let _ = catch_unwind(logs::start);
    VERSION.as_ptr()
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_config_new(
    config: EnvoyPtr,
    _name: Buffer,
    text: Buffer,
) -> *const Filter {
    made(|| {
        // SAFETY: good until this hook returns.
        let text: FilterConfig = config::parse(unsafe { text.bytes() })?;
        let counters = Counters {
            allowed: define_counter(config, "tenantgate.allowed")?,
            denied: define_counter(config, "tenantgate.denied")?,
            undecided: define_counter(config, "tenantgate.undecided")?,
        };
        Filter::new(text, counters)
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_destroy(filter: *mut Filter) {
    // SAFETY: made above.
    unsafe { destroy(filter) }
}

#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_per_route_config_new(
    _name: Buffer,
    text: Buffer,
) -> *const RouteConfig {
    // SAFETY: good until this hook returns.
    made(|| config::parse(unsafe { text.bytes() }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_per_route_config_destroy(
    route: *mut RouteConfig,
) {
    // SAFETY: made above.
    unsafe { destroy(route) }
}

/// A request needs no state of its own: it gets its filter's.
#[unsafe(no_mangle)]
extern "C" fn envoy_dynamic_module_on_http_filter_new(
    filter: *const Filter,
    _stream: EnvoyPtr,
) -> *const Filter {
    filter
}

#[unsafe(no_mangle)]
unsafe extern "C" fn envoy_dynamic_module_on_http_filter_request_headers(
    stream: EnvoyPtr,
    filter: *const Filter,
    _end: bool,
) -> u32 {
    // SAFETY: Envoy keeps a filter's config for as long as its requests live.
    let filter = unsafe { &*filter };
    // SAFETY: null, or what the hook for routes made; it lives as long as the route, and so does
    // the request.
    let route = unsafe {
        envoy_dynamic_module_callback_get_most_specific_route_config(stream)
            .cast::<RouteConfig>()
            .as_ref()
    };
    // SAFETY: as above.
    let stream = unsafe { Stream::new(stream) };
    let api = route.map(|route| route.api.as_str());
    let outcome = catch_unwind(AssertUnwindSafe(|| filter.request(&stream, api)))
        .or_else(|_| catch_unwind(AssertUnwindSafe(|| filter.failed(&stream))));
    match outcome {
        Ok(Outcome::Continue) => CONTINUE,
        // A request that could not even be refused stands still until its time-out.
        Ok(Outcome::Answered) | Err(_) => STOP,
    }
}

/// Hooks that have to be there and have nothing to do. Their arguments are left alone.
macro_rules! idle {
    ($($name:ident),* $(,)?) => {
        $(#[unsafe(no_mangle)] extern "C" fn $name() -> u32 { CONTINUE })*
    };
}

idle!(
    envoy_dynamic_module_on_http_filter_destroy,
    envoy_dynamic_module_on_http_filter_request_body,
    envoy_dynamic_module_on_http_filter_request_trailers,
    envoy_dynamic_module_on_http_filter_response_headers,
    envoy_dynamic_module_on_http_filter_response_body,
    envoy_dynamic_module_on_http_filter_response_trailers,
    envoy_dynamic_module_on_http_filter_stream_complete,
    envoy_dynamic_module_on_http_filter_http_callout_done,
    envoy_dynamic_module_on_http_filter_scheduled,
    envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark,
    envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark,
    envoy_dynamic_module_on_http_filter_local_reply,
    envoy_dynamic_module_on_http_filter_http_stream_headers,
    envoy_dynamic_module_on_http_filter_http_stream_data,
    envoy_dynamic_module_on_http_filter_http_stream_trailers,
    envoy_dynamic_module_on_http_filter_http_stream_complete,
    envoy_dynamic_module_on_http_filter_http_stream_reset,
);
