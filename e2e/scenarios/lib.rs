//! Scenarios on a real cluster: both directions each time, with what the upstream saw.
