//! A dynamic module that does nothing: what Envoy's side of one costs. Compiled by the bench
//! itself.

use std::ffi::{c_char, c_void};

macro_rules! hooks {
    ($($name:ident -> $kind:ty = $value:expr),* $(,)?) => {
        $(#[unsafe(no_mangle)] extern "C" fn $name() -> $kind { $value })*
    };
}

/// What a filter and its config are: Envoy refuses null.
const SOMETHING: *const c_void = std::ptr::dangling();

hooks!(
    envoy_dynamic_module_on_program_init -> *const c_char = c"v0.2.0".as_ptr(),
    envoy_dynamic_module_on_http_filter_config_new -> *const c_void = SOMETHING,
    envoy_dynamic_module_on_http_filter_config_destroy -> u32 = 0,
    envoy_dynamic_module_on_http_filter_per_route_config_new -> *const c_void = SOMETHING,
    envoy_dynamic_module_on_http_filter_per_route_config_destroy -> u32 = 0,
    envoy_dynamic_module_on_http_filter_new -> *const c_void = SOMETHING,
    envoy_dynamic_module_on_http_filter_request_headers -> u32 = 0,
    envoy_dynamic_module_on_http_filter_destroy -> u32 = 0,
    envoy_dynamic_module_on_http_filter_request_body -> u32 = 0,
    envoy_dynamic_module_on_http_filter_request_trailers -> u32 = 0,
    envoy_dynamic_module_on_http_filter_response_headers -> u32 = 0,
    envoy_dynamic_module_on_http_filter_response_body -> u32 = 0,
    envoy_dynamic_module_on_http_filter_response_trailers -> u32 = 0,
    envoy_dynamic_module_on_http_filter_stream_complete -> u32 = 0,
    envoy_dynamic_module_on_http_filter_http_callout_done -> u32 = 0,
    envoy_dynamic_module_on_http_filter_scheduled -> u32 = 0,
    envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark -> u32 = 0,
    envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark -> u32 = 0,
    envoy_dynamic_module_on_http_filter_local_reply -> u32 = 0,
    envoy_dynamic_module_on_http_filter_http_stream_headers -> u32 = 0,
    envoy_dynamic_module_on_http_filter_http_stream_data -> u32 = 0,
    envoy_dynamic_module_on_http_filter_http_stream_trailers -> u32 = 0,
    envoy_dynamic_module_on_http_filter_http_stream_complete -> u32 = 0,
    envoy_dynamic_module_on_http_filter_http_stream_reset -> u32 = 0,
);
