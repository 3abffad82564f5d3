//! Plots of measurements as SVG, in colours for a light and for a dark page.
//!
//! Texts stay texts, and every bar carries its own figure, so that a plot can be read without its
//! colours. A figure that is no number is left out, and a plot without figures is not drawn.

use anyhow::Context as _;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::figures::short;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Width of every plot in pixels: GitHub shows documents about 830 pixels wide.
const WIDTH: u32 = 760;
const MARGIN: i32 = 16;
const TITLE_SIZE: i32 = 17;
const TEXT_SIZE: i32 = 14;
const BAR_HEIGHT: i32 = 16;
/// From one bar to the next, and what a group adds for its label.
const BAR_STEP: i32 = 20;
const GROUP_STEP: i32 = 30;
const HEAD: i32 = 46;
/// Room at the right of the longest bar for its text.
const BAR_TEXT: i32 = 250;
const LINES_HEIGHT: u32 = 300;
const FONT: &str = "sans-serif";

/// Colours of a page.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Theme {
    /// Ends the name of the file.
    pub(crate) name: &'static str,
    background: RGBColor,
    text: RGBColor,
    grid: RGBColor,
    own: RGBColor,
    other: RGBColor,
}

/// For a light page; also shown where a reader's choice is not known.
pub(crate) const LIGHT: Theme = Theme {
    name: "light",
    background: RGBColor(0xff, 0xff, 0xff),
    text: RGBColor(0x1f, 0x23, 0x28),
    grid: RGBColor(0xd1, 0xd9, 0xe0),
    own: RGBColor(0x09, 0x69, 0xda),
    other: RGBColor(0x8c, 0x95, 0x9f),
};

/// For a dark page.
pub(crate) const DARK: Theme = Theme {
    name: "dark",
    background: RGBColor(0x0d, 0x11, 0x17),
    text: RGBColor(0xe6, 0xed, 0xf3),
    grid: RGBColor(0x3d, 0x44, 0x4d),
    own: RGBColor(0x58, 0xa6, 0xff),
    other: RGBColor(0x7d, 0x85, 0x90),
};

/// A figure with its name.
#[derive(Debug, Clone)]
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) value: f64,
}

/// Figures of one measure; the first one is pgiam's if it is named so.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) label: String,
    pub(crate) bars: Vec<Bar>,
}

/// Points in the order of x.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

#[derive(Debug, Clone)]
pub(crate) enum Shape {
    /// Bars from zero on one scale.
    Bars { unit: String, groups: Vec<Group> },
    /// Lines over two axes; y begins at zero.
    Lines {
        x: String,
        y: String,
        series: Vec<Series>,
    },
}

/// One picture.
#[derive(Debug, Clone)]
pub(crate) struct Plot {
    /// Part of the file's name.
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) shape: Shape,
}

/// The name that gets the colour of the program.
pub(crate) const OWN: &str = "pgiam";

impl Plot {
    /// Draws it. `None` if there is no figure to draw.
    ///
    /// # Errors
    /// When the library cannot draw.
    pub(crate) fn svg(&self, theme: Theme) -> anyhow::Result<Option<String>> {
        match &self.shape {
            Shape::Bars { unit, groups } => {
                let groups = finite_groups(groups);
                if groups.is_empty() {
                    return Ok(None);
                }
                let bars: usize = groups.iter().map(|group| group.bars.len()).sum();
                let height = HEAD
                    + GROUP_STEP * i32::try_from(groups.len())?
                    + BAR_STEP * i32::try_from(bars)?;
                let draw = |area: &Area<'_>| draw_bars(area, theme, unit, &groups);
                self.draw(theme, u32::try_from(height)?, draw).map(Some)
            }
            Shape::Lines { x, y, series } => {
                let series = finite_series(series);
                let Some(bounds) = bounds(&series) else {
                    return Ok(None);
                };
                let draw = |area: &Area<'_>| draw_lines(area, theme, [x, y], &series, bounds);
                self.draw(theme, LINES_HEIGHT, draw).map(Some)
            }
        }
    }

    /// The figures as a sentence, for readers that do not see the picture.
    pub(crate) fn alternative(&self) -> String {
        match &self.shape {
            Shape::Bars { unit, groups } => {
                let groups = finite_groups(groups);
                let groups = groups.iter().map(|group| {
                    let bars = group.bars.iter();
                    let bars = bars.map(|bar| format!("{} {}", bar.name, short(bar.value)));
                    format!("{}: {}", group.label, bars.collect::<Vec<_>>().join(", "))
                });
                let groups = groups.collect::<Vec<_>>().join("; ");
                format!("{} in {unit}. {groups}", self.title)
            }
            Shape::Lines { x, y, series } => {
                let names: Vec<&str> = series.iter().map(|one| one.name.as_str()).collect();
                format!("{}: {y} over {x} for {}", self.title, names.join(", "))
            }
        }
    }

    fn draw(
        &self,
        theme: Theme,
        height: u32,
        content: impl FnOnce(&Area<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<String> {
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
            area.fill(&theme.background)?;
            let style = (FONT, TITLE_SIZE, FontStyle::Bold).into_font();
            area.draw(&Text::new(
                self.title.clone(),
                (MARGIN, MARGIN - 2),
                style.color(&theme.text),
            ))?;
            content(&area)?;
            area.present()?;
        }
        Ok(svg)
    }
}

fn draw_bars(area: &Area<'_>, theme: Theme, unit: &str, groups: &[Group]) -> anyhow::Result<()> {
    let values = groups.iter().flat_map(|group| &group.bars);
    let greatest = values.map(|bar| bar.value).fold(0.0, f64::max);
    let room = f64::from(i32::try_from(WIDTH)? - 2 * MARGIN - BAR_TEXT);
    let font = (FONT, TEXT_SIZE).into_font().color(&theme.text);
    let beside = font.clone().pos(Pos::new(HPos::Left, VPos::Center));
    let mut y = HEAD;
    for group in groups {
        area.draw(&Text::new(group.label.clone(), (MARGIN, y), font.clone()))?;
        y += BAR_STEP;
        for bar in &group.bars {
            let share = if greatest > 0.0 {
                (bar.value / greatest).max(0.0)
            } else {
                0.0
            };
            // At least one pixel, so that the text stands beside something.
            let end = MARGIN + ((room * share) as i32).max(1);
            let color = if bar.name == OWN {
                theme.own
            } else {
                theme.other
            };
            let corners = [(MARGIN, y), (end, y + BAR_HEIGHT)];
            area.draw(&Rectangle::new(corners, color.filled()))?;
            let text = format!("{} {unit}, {}", short(bar.value), bar.name);
            let place = (end + 6, y + BAR_HEIGHT / 2);
            area.draw(&Text::new(text, place, beside.clone()))?;
            y += BAR_STEP;
        }
        y += GROUP_STEP - BAR_STEP;
    }
    Ok(())
}

fn draw_lines(
    area: &Area<'_>,
    theme: Theme,
    axes: [&str; 2],
    series: &[Series],
    [left, right, top]: [f64; 3],
) -> anyhow::Result<()> {
    let font = (FONT, TEXT_SIZE).into_font().color(&theme.text);
    let mut chart = ChartBuilder::on(area)
        .margin(MARGIN)
        .margin_top(HEAD)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(left..right, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(theme.grid)
        .axis_style(theme.grid)
        .label_style(font.clone())
        .axis_desc_style(font.clone())
        .x_desc(axes[0])
        .y_desc(axes[1])
        .x_label_formatter(&|value| short_axis(*value))
        .y_label_formatter(&|value| short_axis(*value))
        .draw()?;
    for one in series {
        let color = if one.name == OWN {
            theme.own
        } else {
            theme.other
        };
        chart.draw_series(LineSeries::new(
            one.points.iter().copied(),
            color.stroke_width(2),
        ))?;
        // The name stands at the end of its line, above it.
        let end = one.points.last().context("a series without points")?;
        let (x, y) = chart.backend_coord(end);
        let style = font.clone().pos(Pos::new(HPos::Right, VPos::Bottom));
        area.draw(&Text::new(one.name.clone(), (x, y - 6), style))?;
    }
    Ok(())
}

/// Whole numbers without a fraction, others with what distinguishes them.
fn short_axis(value: f64) -> String {
    if value.fract().abs() < 1e-9 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    }
}

fn finite_groups(groups: &[Group]) -> Vec<Group> {
    let groups = groups.iter().map(|group| Group {
        label: group.label.clone(),
        bars: group
            .bars
            .iter()
            .filter(|bar| bar.value.is_finite())
            .cloned()
            .collect(),
    });
    groups.filter(|group| !group.bars.is_empty()).collect()
}

fn finite_series(series: &[Series]) -> Vec<Series> {
    let series = series.iter().map(|one| Series {
        name: one.name.clone(),
        points: one
            .points
            .iter()
            .copied()
            .filter(|(x, y)| x.is_finite() && y.is_finite())
            .collect(),
    });
    series.filter(|one| !one.points.is_empty()).collect()
}

/// Left, right and top of all points, with room above; `None` without points.
fn bounds(series: &[Series]) -> Option<[f64; 3]> {
    let points = || series.iter().flat_map(|one| one.points.iter());
    let left = points().map(|point| point.0).reduce(f64::min)?;
    let right = points().map(|point| point.0).reduce(f64::max)?;
    let top = points().map(|point| point.1).reduce(f64::max)?;
    // A single point and a row of zeros have a width and a height, too.
    let right = if right > left { right } else { left + 1.0 };
    Some([left, right, if top > 0.0 { top * 1.2 } else { 1.0 }])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(name: &str, value: f64) -> Bar {
        Bar {
            name: name.to_owned(),
            value,
        }
    }

    fn bars(groups: Vec<(&str, Vec<Bar>)>) -> Plot {
        Plot {
            name: "rates".to_owned(),
            title: "Rates < & >".to_owned(),
            shape: Shape::Bars {
                unit: "MB/s".to_owned(),
                groups: groups
                    .into_iter()
                    .map(|(label, bars)| Group {
                        label: label.to_owned(),
                        bars,
                    })
                    .collect(),
            },
        }
    }

    fn lines(points: Vec<(f64, f64)>) -> Plot {
        let name = OWN.to_owned();
        Plot {
            name: "memory".to_owned(),
            title: "Memory".to_owned(),
            shape: Shape::Lines {
                x: "seconds".to_owned(),
                y: "MB".to_owned(),
                series: vec![Series { name, points }],
            },
        }
    }

    /// The elements of one kind, as their attributes and text.
    fn elements(svg: &str, kind: &str) -> Vec<(String, Vec<(String, String)>)> {
        let document = roxmltree::Document::parse(svg).unwrap();
        let found = document
            .descendants()
            .filter(|node| node.has_tag_name(kind));
        found
            .map(|node| {
                let attributes = node.attributes();
                let attributes =
                    attributes.map(|one| (one.name().to_owned(), one.value().to_owned()));
                let text = node.text().unwrap_or_default().trim().to_owned();
                (text, attributes.collect())
            })
            .collect()
    }

    fn number(attributes: &[(String, String)], name: &str) -> f64 {
        let found = attributes.iter().find(|(key, _)| key == name).unwrap();
        found.1.parse().unwrap()
    }

    #[test]
    fn bars_are_as_long_as_their_figures_and_say_them() {
        let plot = bars(vec![
            ("down", vec![bar(OWN, 80.0), bar("other", 20.0)]),
            ("up", vec![bar(OWN, 40.0), bar("other", f64::NAN)]),
        ]);
        let svg = plot.svg(LIGHT).unwrap().unwrap();
        // The first rectangle is the background.
        let rectangles = elements(&svg, "rect");
        let widths: Vec<f64> = rectangles[1..]
            .iter()
            .map(|one| number(&one.1, "width"))
            .collect();
        let [long, short, middle] = widths[..] else {
            panic!("{widths:?}");
        };
        assert!((long / short - 4.0).abs() < 0.05, "{widths:?}");
        assert!((long / middle - 2.0).abs() < 0.05, "{widths:?}");
        let texts: Vec<String> = elements(&svg, "text")
            .into_iter()
            .map(|one| one.0)
            .collect();
        let expected = [
            "Rates < & >",
            "down",
            "80.0 MB/s, pgiam",
            "20.0 MB/s, other",
            "up",
            "40.0 MB/s, pgiam",
        ];
        assert_eq!(texts, expected);
        assert!(!svg.contains("NaN"), "{svg}");
        let last = rectangles.last().unwrap();
        let bottom = number(&last.1, "y") + number(&last.1, "height");
        assert!(bottom < number(&rectangles[0].1, "height"), "{bottom}");
    }

    #[test]
    fn themes_differ_in_colours_only() {
        let plot = bars(vec![("down", vec![bar(OWN, 1.0)])]);
        let [light, dark] = [LIGHT, DARK].map(|theme| plot.svg(theme).unwrap().unwrap());
        assert!(light.contains("#0969DA") && !light.contains("#58A6FF"));
        assert!(dark.contains("#58A6FF") && !dark.contains("#0969DA"));
        let texts = |svg: &str| {
            elements(svg, "text")
                .into_iter()
                .map(|one| one.0)
                .collect::<Vec<_>>()
        };
        assert_eq!(texts(&light), texts(&dark));
    }

    #[test]
    fn text_has_the_contrast_that_small_text_needs() {
        let linear = |value: u8| {
            let value = f64::from(value) / 255.0;
            if value <= 0.040_45 {
                value / 12.92
            } else {
                ((value + 0.055) / 1.055).powf(2.4)
            }
        };
        let luminance = |color: RGBColor| {
            0.2126 * linear(color.0) + 0.7152 * linear(color.1) + 0.0722 * linear(color.2)
        };
        let contrast = |one: RGBColor, other: RGBColor| {
            let (one, other) = (luminance(one), luminance(other));
            (one.max(other) + 0.05) / (one.min(other) + 0.05)
        };
        for theme in [LIGHT, DARK] {
            assert!(contrast(theme.text, theme.background) >= 7.0, "{theme:?}");
            // Graphical objects need 3 to 1 (WCAG 2.2, 1.4.11).
            assert!(contrast(theme.own, theme.background) >= 3.0, "{theme:?}");
            assert!(contrast(theme.other, theme.background) >= 3.0, "{theme:?}");
        }
    }

    #[test]
    fn nothing_is_drawn_without_figures() {
        let empty = [
            bars(vec![]),
            bars(vec![("down", vec![])]),
            bars(vec![(
                "down",
                vec![bar(OWN, f64::NAN), bar(OWN, f64::INFINITY)],
            )]),
            lines(vec![]),
            lines(vec![(0.0, f64::NAN), (f64::NAN, 1.0)]),
        ];
        for plot in empty {
            assert_eq!(plot.svg(DARK).unwrap(), None, "{plot:?}");
        }
    }

    #[test]
    fn lines_keep_to_their_frame() {
        let points = (0..20).map(|x| (f64::from(x), f64::from(x % 7))).collect();
        let plots = [
            lines(points),
            lines(vec![(3.0, 0.0)]),
            lines(vec![(0.0, 5.0), (1.0, f64::NAN), (2.0, 6.0)]),
        ];
        for plot in plots {
            let svg = plot.svg(LIGHT).unwrap().unwrap();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            let document = roxmltree::Document::parse(&svg).unwrap();
            let drawn = document
                .descendants()
                .filter_map(|node| node.attribute("points"));
            for point in drawn.flat_map(str::split_whitespace) {
                let (x, y) = point.split_once(',').unwrap();
                let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                assert!(x >= 0.0 && x <= f64::from(WIDTH), "{point}");
                assert!(
                    y >= f64::from(HEAD) && y <= f64::from(LINES_HEIGHT),
                    "{point}"
                );
            }
            let texts: Vec<String> = elements(&svg, "text")
                .into_iter()
                .map(|one| one.0)
                .collect();
            for expected in ["Memory", "seconds", "MB", OWN] {
                assert!(texts.iter().any(|text| text == expected), "{texts:?}");
            }
        }
    }

    #[test]
    fn the_alternative_has_the_figures() {
        let plot = bars(vec![("down", vec![bar(OWN, 80.0), bar("x", f64::NAN)])]);
        assert_eq!(plot.alternative(), "Rates < & > in MB/s. down: pgiam 80.0");
    }
}
