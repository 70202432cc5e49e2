//! Maintenance windows: when a site lets itself be changed.

use jiff::Timestamp;
use jiff::civil::{Time, Weekday as Day};
use jiff::tz::TimeZone;
use types::{MaintenanceWindow, Weekday};

/// Whether one of the windows is open; sites without windows can be changed at any time.
pub fn is_open(windows: &[MaintenanceWindow], now: Timestamp) -> bool {
    windows.is_empty() || windows.iter().any(|window| is_one_open(window, now))
}

/// When the next window opens after now; `None` if none does within a week.
pub fn opens_at(windows: &[MaintenanceWindow], now: Timestamp) -> Option<Timestamp> {
    windows.iter().filter_map(|window| openings(window, now).find(|opening| *opening > now)).min()
}

fn is_one_open(window: &MaintenanceWindow, now: Timestamp) -> bool {
    let has_begun = |opening: &Timestamp| *opening <= now;
    openings(window, now)
        .filter(has_begun)
        .any(|opening| opening.checked_add(window.duration.duration()).is_ok_and(|closing| now < closing))
}

/// When a window opens from a week ago to a week from now, in order. What its time zone skips begins after the gap.
fn openings(window: &MaintenanceWindow, now: Timestamp) -> impl Iterator<Item = Timestamp> {
    // Admission lets no unknown zone pass; a hub that knows fewer of them keeps such a window shut.
    let zone = window.zone();
    let (hour, minute) = window.starts_at();
    let start = Time::new(hour, minute, 0, 0).unwrap_or_default();
    let today = now.to_zoned(zone.clone().unwrap_or(TimeZone::UTC)).date();
    (-8..=8).filter_map(move |days| {
        let date = today.checked_add(jiff::Span::new().days(days)).ok()?;
        let is_wanted = window.days.is_empty() || window.days.iter().any(|day| of(*day) == date.weekday());
        let zone = zone.clone().filter(|_| is_wanted)?;
        Some(date.to_datetime(start).to_zoned(zone).ok()?.timestamp())
    })
}

fn of(day: Weekday) -> Day {
    match day {
        Weekday::Monday => Day::Monday,
        Weekday::Tuesday => Day::Tuesday,
        Weekday::Wednesday => Day::Wednesday,
        Weekday::Thursday => Day::Thursday,
        Weekday::Friday => Day::Friday,
        Weekday::Saturday => Day::Saturday,
        Weekday::Sunday => Day::Sunday,
    }
}
