//! What no guest should send: each comes back, answered or not, and the next request is served.
