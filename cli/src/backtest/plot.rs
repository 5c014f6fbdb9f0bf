//! Plots of violations against footprint, as SVG.

use super::report::{Curve, Point};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 460.0;
/// Margins for the axes: left, right, top, bottom.
const MARGINS: [f64; 4] = [70.0, 190.0, 40.0, 50.0];
/// One colour per policy.
const COLOURS: [&str; 12] = [
    "#d62728", "#1f77b4", "#17becf", "#2ca02c", "#98df8a", "#9467bd", "#8c564b", "#7f7f7f", "#ff7f0e",
    "#393b79", "#e377c2", "#000000",
];
/// Lower end of the logarithmic axis, percent; lower values are drawn here.
const MIN_PERCENT: f64 = 0.02;

/// Pod-days with a violation against the footprint of memory.
pub fn memory(curves: &[Curve]) -> String {
    let point = |point: &Point| (point.memory.footprint_ratio, point.memory.violation_pod_days_pct);
    draw("Memory: pod-days above the limit, %", curves, &point)
}

/// CPU time above the request against the footprint of CPU.
pub fn cpu(curves: &[Curve]) -> String {
    let point = |point: &Point| (point.cpu.footprint_ratio, point.cpu.unserved_work_pct);
    draw("CPU: time above the request, %", curves, &point)
}

fn draw(title: &str, curves: &[Curve], point: &dyn Fn(&Point) -> (f64, f64)) -> String {
    let all: Vec<(f64, f64)> = curves.iter().flat_map(|curve| &curve.points).map(point).collect();
    let ends = |values: &mut dyn Iterator<Item = f64>| {
        values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
    };
    let (left, right) = ends(&mut all.iter().map(|point| point.0));
    let (low, high) = ends(&mut all.iter().map(|point| point.1.max(MIN_PERCENT)));
    let [room_left, room_right, room_top, room_bottom] = MARGINS;
    let (wide, tall) = (WIDTH - room_left - room_right, HEIGHT - room_top - room_bottom);
    let part = |value: f64, low: f64, high: f64| if high > low { (value - low) / (high - low) } else { 0.5 };
    let x = |value: f64| room_left + wide * part(value, left, right);
    let y = |value: f64| room_top + tall * (1.0 - part(value.max(MIN_PERCENT).ln(), low.ln(), high.ln()));
    let text = |x: f64, y: f64, anchor: &str, text: &str| {
        format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#333\">{text}</text>\n")
    };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    svg.push_str(&text(room_left, room_top - 20.0, "start", title));
    svg.push_str(&text(room_left + wide / 2.0, HEIGHT - 12.0, "middle", "footprint: recommended ÷ needed"));
    for step in 0..=4 {
        let value = left + (right - left) * f64::from(step) / 4.0;
        svg.push_str(&text(x(value), HEIGHT - room_bottom + 18.0, "middle", &format!("{value:.2}")));
        let value = (low.ln() + (high.ln() - low.ln()) * f64::from(step) / 4.0).exp();
        svg.push_str(&text(room_left - 8.0, y(value) + 4.0, "end", &format!("{value:.2}")));
        svg.push_str(&format!("<path d=\"M{room_left},{0:.1}h{wide}\" stroke=\"#ddd\"/>\n", y(value)));
    }
    for (place, curve) in curves.iter().filter(|curve| !curve.points.is_empty()).enumerate() {
        let colour = COLOURS.get(place % COLOURS.len()).copied().unwrap_or("black");
        let points: Vec<String> =
            curve.points.iter().map(point).map(|(at, risk)| format!("{:.1},{:.1}", x(at), y(risk))).collect();
        svg.push_str(&format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n",
            points.join(" ")
        ));
        if let Some(plain) = curve.points.iter().find(|point| point.factor == 1.0) {
            let (at, risk) = point(plain);
            svg.push_str(&format!(
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{colour}\"/>\n",
                x(at),
                y(risk)
            ));
        }
        let down = room_top + 18.0 * place as f64;
        let across = WIDTH - room_right + 14.0;
        svg.push_str(&format!("<path d=\"M{across},{down}h18\" stroke=\"{colour}\" stroke-width=\"3\"/>\n"));
        svg.push_str(&text(across + 24.0, down + 4.0, "start", &curve.policy));
    }
    svg.push_str("</svg>\n");
    svg
}
