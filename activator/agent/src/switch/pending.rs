//! The lists of units that an interrupted `switch-to-configuration` leaves for the next one.

use std::path::Path;

/// Removes the units that a system does not have from these lists. Its switch would try to start them, and fail.
pub(crate) fn forget_missing_units(system: &str) {
    for list in ["start-list", "restart-list", "reload-list"] {
        let path = Path::new("/run/nixos").join(list);
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        let exists = |unit: &&str| Path::new(system).join("etc/systemd/system").join(unit).exists();
        // Each name ends its line, because `switch-to-configuration` appends to the list.
        let kept: String = text.lines().filter(exists).map(|unit| format!("{unit}\n")).collect();
        let _ = std::fs::write(&path, kept);
    }
}
