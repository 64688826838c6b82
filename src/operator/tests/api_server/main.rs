//! The operator against a real API server, under its own account and with the chart's rights alone. Nothing here makes
//! pods or signs certificates: the tests play cert-manager and the kubelet, by writing what those would.

mod audit;
mod building;
mod claims;
mod drift;
mod ending;
mod fixture;
mod leading;
mod rights;
