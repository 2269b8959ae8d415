//! Curves as SVG.

use anyhow::anyhow;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

/// A drawing of one curve.
#[derive(Debug)]
pub(crate) struct Plot<'a> {
    pub(crate) title: &'a str,
    pub(crate) across: &'a str,
    pub(crate) up: &'a str,
    /// Powers stand equally far apart.
    pub(crate) logarithmic: bool,
    pub(crate) points: Vec<(f64, f64)>,
}

const SIZE: (u32, u32) = (560, 320);

impl Plot<'_> {
    /// The drawing.
    pub(crate) fn svg(&self) -> Result<String, anyhow::Error> {
        let across = |pick: fn(f64, f64) -> f64, start| {
            let all = self.points.iter().map(|(x, _)| *x);
            all.fold(start, pick)
        };
        let (first, last) = (across(f64::min, f64::MAX), across(f64::max, f64::MIN));
        if self.logarithmic {
            self.draw((first..last).log_scale())
        } else {
            self.draw(first..last.max(first + 1.0))
        }
    }

    fn draw<X>(&self, across: X) -> Result<String, anyhow::Error>
    where
        X: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
    {
        let failed = |error: &dyn std::fmt::Display| anyhow!("drawing {}: {error}", self.title);
        let highest = self.points.iter().map(|(_, y)| *y).fold(1.0, f64::max);
        let mut text = String::new();
        {
            let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
            area.fill(&WHITE).map_err(|error| failed(&error))?;
            let mut chart = ChartBuilder::on(&area)
                .caption(self.title, ("sans-serif", 17))
                .margin(12)
                .x_label_area_size(36)
                .y_label_area_size(64)
                .build_cartesian_2d(across, 0.0..highest * 1.1)
                .map_err(|error| failed(&error))?;
            chart
                .configure_mesh()
                .x_desc(self.across)
                .y_desc(self.up)
                .light_line_style(TRANSPARENT)
                .x_label_formatter(&|x| format!("{x:.0}"))
                .y_label_formatter(&|y| format!("{y:.0}"))
                .draw()
                .map_err(|error| failed(&error))?;
            let points = || self.points.iter().copied();
            chart
                .draw_series(LineSeries::new(points(), BLUE.stroke_width(2)))
                .map_err(|error| failed(&error))?;
            chart
                .draw_series(points().map(|point| Circle::new(point, 3, BLUE.filled())))
                .map_err(|error| failed(&error))?;
            area.present().map_err(|error| failed(&error))?;
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_has_its_title_and_a_mark_for_each_point() {
        for logarithmic in [false, true] {
            let plot = Plot {
                title: "reads",
                across: "connections",
                up: "a second",
                logarithmic,
                points: vec![(1.0, 10.0), (16.0, 100.0), (256.0, 120.0)],
            };
            let svg = plot.svg().unwrap();
            assert!(svg.starts_with("<svg") && svg.contains("reads"), "{svg}");
            assert_eq!(svg.matches("<circle").count(), 3);
        }
    }
}
