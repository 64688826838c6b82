//! The picture: added latency and calls a second, a bar a row.

use std::{ops::Range, path::Path};

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::{
    backend::SVGBackend,
    chart::ChartBuilder,
    drawing::{DrawingArea, IntoDrawingArea},
    element::{Rectangle, Text},
    style::{Color, IntoFont, RGBColor, WHITE},
};

use super::Line;

/// Pixels.
const SIZE: (u32, u32) = (960, 560);
const OWN: RGBColor = RGBColor(0x1f, 0x6f, 0xb2);
const OTHER: RGBColor = RGBColor(0xa9, 0xb4, 0xbf);

/// Draws it into a file.
pub(super) fn draw(lines: &[Line<'_>], file: &Path) -> Result<()> {
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE).map_err(|error| anyhow!("{error}"))?;
    let (left, right) = area.split_horizontally(SIZE.0 / 2);
    // The first row is what the others add to.
    let added = lines.iter().skip(1).map(|line| (line.row.name, line.added_p50));
    bars(&left, "added p50 at 1 connection, µs", &added.collect::<Vec<_>>())?;
    let rates = lines.iter().skip(1);
    let rates = rates.map(|line| (line.row.name, line.rates.last().copied().unwrap_or_default()));
    bars(
        &right,
        "calls a second at 64 connections",
        &rates.collect::<Vec<_>>(),
    )?;
    area.present().map_err(|error| anyhow!("{error}"))
}

fn bars(area: &DrawingArea<SVGBackend<'_>, Shift>, title: &str, values: &[(&str, f64)]) -> Result<()> {
    let most = values.iter().map(|(_, value)| *value).fold(1.0, f64::max);
    #[allow(clippy::cast_precision_loss, reason = "a handful of bars")]
    let height: Range<f64> = (values.len() as f64)..0.0;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 17))
        .margin(12)
        .build_cartesian_2d(0.0..most * 1.18, height)
        .map_err(|error| anyhow!("{error}"))?;
    let mut top = 0.0;
    for (name, value) in values {
        let color = if name.starts_with("Bulkhead") { OWN } else { OTHER };
        let bar = Rectangle::new([(0.0, top + 0.45), (*value, top + 0.85)], color.filled());
        let label = Text::new(
            (*name).to_owned(),
            (0.0, top + 0.12),
            ("sans-serif", 14).into_font(),
        );
        let figure = Text::new(
            format!("{value:.0}"),
            (*value + most * 0.01, top + 0.5),
            ("sans-serif", 14).into_font(),
        );
        chart.draw_series([bar]).map_err(|error| anyhow!("{error}"))?;
        chart
            .draw_series([label, figure])
            .map_err(|error| anyhow!("{error}"))?;
        top += 1.0;
    }
    Ok(())
}
