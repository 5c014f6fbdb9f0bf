//! Grafana dashboards from `deploy/monitoring/dashboards.yaml`.

use std::fs;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::manifests::deploy;

/// Width of the grid, and size of a panel on it.
const COLUMNS: usize = 24;
const SIZE: (usize, usize) = (12, 8);

/// A query of a panel.
#[derive(Clone, Debug)]
pub struct Query {
    /// Dashboard and panel.
    pub title: String,
    /// The name of its series, with Grafana's placeholders for labels.
    pub legend: String,
    /// PromQL with Grafana's variables.
    pub expr: String,
    /// Labels and value for the series of `dashboards-tests.yaml`; `None` if the query needs native histograms.
    pub expected: Option<String>,
}

/// The dashboards of the source.
pub fn source() -> Result<Vec<Value>> {
    let file = deploy().join("monitoring/dashboards.yaml");
    let source: Value = serde_saphyr::from_str(&fs::read_to_string(file)?)?;
    Ok(source["dashboards"].as_array().context("dashboards")?.clone())
}

fn text<'v>(value: &'v Value, field: &str) -> Result<&'v str> {
    value[field].as_str().with_context(|| format!("no text {field} in {value}"))
}

fn items<'v>(value: &'v Value, field: &str) -> Result<&'v Vec<Value>> {
    value[field].as_array().with_context(|| format!("no list {field} in {value}"))
}

/// All queries of a dashboard of the source.
pub fn queries(dashboard: &Value) -> Result<Vec<Query>> {
    let mut all = Vec::new();
    for panel in items(dashboard, "panels")? {
        let title = format!("{}: {}", text(dashboard, "title")?, text(panel, "title")?);
        for query in items(panel, "queries")? {
            let expected = query["expected"].as_str().map(str::to_owned);
            if expected.is_some() == (panel["native"] == true) {
                bail!("{title}: a query has either an expected value, or needs native histograms");
            }
            let (legend, expr) = (text(query, "legend")?.to_owned(), text(query, "expr")?.to_owned());
            all.push(Query { title: title.clone(), legend, expr, expected });
        }
    }
    Ok(all)
}

/// The JSON of a dashboard of the source, as Grafana exports it.
pub fn grafana(dashboard: &Value) -> Result<String> {
    let datasource = json!({ "type": "prometheus", "uid": "${datasource}" });
    let mut variables = vec![json!({
        "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0,
    })];
    for variable in items(dashboard, "variables")? {
        let query = text(variable, "query")?;
        variables.push(json!({
            "name": text(variable, "name")?, "label": text(variable, "label")?, "type": "query", "datasource": datasource,
            "definition": query, "query": { "query": query, "refId": "variable" }, "refresh": 2, "sort": 1,
            "includeAll": true, "multi": true, "allValue": ".+", "current": { "text": "All", "value": "$__all" },
        }));
    }
    let mut panels = Vec::new();
    for (number, source) in items(dashboard, "panels")?.iter().enumerate() {
        panels.push(panel(number, source, &datasource)?);
    }
    let made = json!({
        "uid": text(dashboard, "uid")?, "title": text(dashboard, "title")?, "description": text(dashboard, "description")?,
        "tags": ["snug"], "schemaVersion": 39, "editable": true, "graphTooltip": 1, "refresh": "30s", "timezone": "browser",
        "time": { "from": "now-6h", "to": "now" }, "templating": { "list": variables }, "panels": panels,
    });
    Ok(serde_json::to_string_pretty(&made)? + "\n")
}

fn panel(number: usize, source: &Value, datasource: &Value) -> Result<Value> {
    let is_table = source["kind"] == "table";
    let target = |(number, query): (usize, &Value)| -> Result<Value> {
        let letter = char::from(b'A' + u8::try_from(number)?);
        Ok(json!({
            "refId": letter.to_string(), "datasource": datasource, "expr": text(query, "expr")?,
            "legendFormat": text(query, "legend")?, "instant": is_table, "range": !is_table,
        }))
    };
    let targets = items(source, "queries")?.iter().enumerate().map(target).collect::<Result<Vec<Value>>>()?;
    let (width, height) = SIZE;
    let in_row = COLUMNS / width;
    let options = if is_table {
        json!({ "displayMode": "basic", "orientation": "horizontal", "reduceOptions": { "calcs": ["lastNotNull"] } })
    } else {
        json!({ "legend": { "displayMode": "list", "placement": "bottom" }, "tooltip": { "mode": "multi", "sort": "desc" } })
    };
    Ok(json!({
        "id": number + 1, "title": text(source, "title")?, "description": source["description"].as_str().unwrap_or_default(),
        "type": if is_table { "bargauge" } else { "timeseries" }, "datasource": datasource, "targets": targets,
        "gridPos": { "x": number % in_row * width, "y": number / in_row * height, "w": width, "h": height },
        "fieldConfig": { "defaults": { "unit": text(source, "unit")?, "min": 0 }, "overrides": [] }, "options": options,
    }))
}

/// A query with values for Grafana's variables: the longest names first, as some begin with others.
pub fn substituted(expr: &str, variables: &Value) -> Result<String> {
    let mut names: Vec<(&String, &Value)> = variables.as_object().context("variables")?.iter().collect();
    names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    let mut expr = expr.to_owned();
    for (name, value) in names {
        expr = expr.replace(&format!("${name}"), value.as_str().context("a text")?);
    }
    if expr.contains('$') {
        bail!("{expr}: a variable has no value");
    }
    Ok(expr)
}
