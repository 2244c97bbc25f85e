//! Composable userspace filesystem backends for microVM hosts.
