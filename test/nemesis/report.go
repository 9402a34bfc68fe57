package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"math"
	"os"
	"slices"
	"strings"
	"time"
)

//go:embed report.html
var reportHTML string

var reportTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"percent": percent,
	"ms":      readableMS,
	"count":   readableCount,
	"stalled": func(stalls []stall) string {
		sum := 0.0
		for _, s := range stalls {
			sum += s.Ended - s.Began
		}
		return fmt.Sprintf("%.1f s", sum)
	},
	"seconds": func(s float64) string { return fmt.Sprintf("%.1f", s) },
	"nodes":   names,
	"share":   func(part, whole int) string { return percent(share(part, whole)) },
}).Parse(reportHTML))

// writeReport writes the report of a run as one HTML file that needs nothing else.
func writeReport(file string, r *result) error {
	var b bytes.Buffer
	if err := reportTemplate.Execute(&b, newPage(r)); err != nil {
		return fmt.Errorf("render the report: %w", err)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

// percent shows a share with as many digits as tell it from one.
func percent(share float64) string {
	switch {
	case share == 1:
		return "100\u00a0%"
	case share > 0.99:
		// Rounded down: what is not all must not look like all.
		return fmt.Sprintf("%.3f\u00a0%%", math.Floor(share*100_000)/1000)
	}
	return fmt.Sprintf("%.1f\u00a0%%", share*100)
}

func readableMS(ms float64) string {
	if ms >= 1000 {
		return fmt.Sprintf("%.2f\u00a0s", ms/1000)
	}
	return fmt.Sprintf("%.0f\u00a0ms", ms)
}

// readableCount separates thousands.
func readableCount(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

// groups are the colors of the faults.
var groups = []struct {
	Name  string
	Class string
	kinds []kind
}{
	{"processes", "proc", []kind{killNode, restartNode, pauseNode, restartAll, killAll}},
	{"network", "net", []kind{partition, oneWay, bridge, loss, delay}},
	{"disk", "disk", []kind{fullDisk, syncError, syncStall, syncLie}},
	{"clock", "clock", []kind{wrongClock}},
	{"provider", "prov", []kind{provider}},
}

func groupOf(k kind) string {
	for _, g := range groups {
		if slices.Contains(g.kinds, k) {
			return g.Class
		}
	}
	return "proc"
}

// page is what the template sees.
type page struct {
	*result
	Broken   int
	Groups   any
	Kinds    []kindRow
	Timeline timeline
}

type kindRow struct {
	Kind, What, Class string
	Times             int
	Skipped           string
}

// The pictures have one time axis, so they have one coordinate system too: pixels at a width of 1120.
const (
	pictureWidth = 1120
	marginLeft   = 84
	marginRight  = 16
	rowHeight    = 26
	flowHeight   = 150
	delayHeight  = 150
	gapHeight    = 34
)

// timeline is the geometry of the pictures.
type timeline struct {
	Width, Height float64
	Left, Right   float64
	Rows          []row
	Bars          []bar
	Elections     []mark
	ElectionY     float64
	Axis          []mark
	AxisY         float64
	Flow          []stack
	FlowTop       float64
	FlowBottom    float64
	FlowMax       string
	FlowUnit      string
	Delays        []curve
	DelayTop      float64
	DelayBottom   float64
	DelayGrid     []gridLine
	InTimeY       float64
}

type row struct {
	Y    float64
	Name string
}

type bar struct {
	X, Y, W, TailX, TailW, H float64
	LabelY                   float64
	Class, Title, Label      string
}

type mark struct {
	X    float64
	Text string
}

type stack struct {
	X, W                   float64
	OKY, OKH, LateY, LateH float64
	LostY, LostH           float64
	Title                  string
}

type curve struct{ Class, Name, Points string }

type gridLine struct {
	Y    float64
	Text string
}

func newPage(r *result) page {
	p := page{result: r, Groups: groups, Timeline: draw(r)}
	for _, c := range r.Checks {
		if !c.Passed {
			p.Broken++
		}
	}
	for _, k := range kinds {
		row := kindRow{Kind: string(k.kind), What: k.what, Class: groupOf(k.kind), Skipped: r.Skipped[string(k.kind)]}
		for _, f := range r.Faults {
			if f.Kind == k.kind {
				row.Times++
			}
		}
		p.Kinds = append(p.Kinds, row)
	}
	return p
}

// draw lays the pictures out.
func draw(r *result) (t timeline) {
	length := max(r.length.Seconds(), 1)
	t.Width, t.Left, t.Right = pictureWidth, marginLeft, pictureWidth-marginRight
	x := func(s float64) float64 { return t.Left + (t.Right-t.Left)*min(max(s, 0), length)/length }
	y := 8.0
	rows := make(map[int]float64)
	for n := 1; n <= r.Nodes; n++ {
		rows[n] = y
		t.Rows = append(t.Rows, row{y, fmt.Sprintf("node %d", n)})
		y += rowHeight
	}
	rows[providerRow] = y
	t.Rows = append(t.Rows, row{y, "provider"})
	y += rowHeight
	for _, f := range r.Faults {
		on := f.Nodes
		if len(on) == 0 {
			on = []int{providerRow}
		}
		whole := f.Whole
		if whole < 0 {
			whole = length
		}
		title := fmt.Sprintf("%s %s\n%.1f s to %.1f s, all nodes ready again at %.1f s\n%s of %d orders answered in time",
			f.Kind, f.Text, f.Began, f.Ended, whole, percent(share(f.InTime, f.Sent)), f.Sent)
		for _, n := range on {
			b := bar{X: x(f.Began), Y: rows[n] + 3, H: rowHeight - 6, Class: groupOf(f.Kind), Title: title, TailX: x(f.Ended), LabelY: rows[n] + 17}
			b.W, b.TailW = max(b.TailX-b.X, 2), max(x(whole)-b.TailX, 0)
			// Two at once share the row: the earlier has its upper half.
			for i := range t.Bars {
				if o := &t.Bars[i]; o.Y <= b.Y && b.Y < o.Y+o.H && o.X < b.TailX && b.X < o.TailX {
					o.H, o.LabelY = rowHeight/2-4, rows[n]+11
					b.H, b.Y, b.LabelY = o.H, rows[n]+rowHeight/2+1, rows[n]+rowHeight-4
				}
			}
			if b.W > 7*float64(len(f.Kind)) {
				b.Label = string(f.Kind)
			}
			t.Bars = append(t.Bars, b)
		}
	}
	t.Rows = append(t.Rows, row{y, "machine"})
	for _, s := range r.Stalls {
		b := bar{X: x(s.Began), Y: y + 3, H: rowHeight - 6, Class: "prov", TailX: x(s.Ended)}
		b.W, b.Title = max(b.TailX-b.X, 2), fmt.Sprintf("%.1f s: this program got no processor for %.0f ms", s.Began, 1000*(s.Ended-s.Began))
		t.Bars = append(t.Bars, b)
	}
	y += rowHeight
	t.ElectionY = y
	for _, e := range r.elections {
		t.Elections = append(t.Elections, mark{x(e.At.Seconds()), fmt.Sprintf("%.1f s: %s, term %d, node %d leads", e.At.Seconds(), e.Shard, e.Term, e.Node)})
	}
	y += rowHeight + gapHeight

	t.FlowTop, t.FlowBottom = y, y+flowHeight
	y += flowHeight + gapHeight
	t.DelayTop, t.DelayBottom = y, y+delayHeight
	y += delayHeight
	t.AxisY = y + 16
	t.Height = y + 30
	step := axisStep(length)
	for s := 0.0; s <= length; s += step {
		text := fmt.Sprintf("%.0f s", s)
		if step >= 60 {
			text = fmt.Sprintf("%.0f min", s/60)
		}
		t.Axis = append(t.Axis, mark{x(s), text})
	}
	t.flow(r, length, x)
	return t
}

// axisStep is the distance between two times on the axis.
func axisStep(length float64) float64 {
	for _, s := range []float64{5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400} {
		if length/s <= 14 {
			return s
		}
	}
	return 86400
}

// flow draws throughput and latency from the samples, in buckets of at least a second.
func (t *timeline) flow(r *result, length float64, x func(float64) float64) {
	width := max(1, math.Ceil(length/260))
	buckets := make([]struct {
		ok, late, lost int
		took           []time.Duration
	}, int(math.Ceil(length/width)))
	most := 1
	for _, s := range r.samples {
		b := &buckets[min(int(s.Begin.Seconds()/width), len(buckets)-1)]
		switch {
		case s.timely():
			b.ok++
		case s.Answered:
			b.late++
		default:
			b.lost++
		}
		if s.Answered {
			b.took = append(b.took, s.Took)
		}
		most = max(most, b.ok+b.late+b.lost)
	}
	t.FlowMax = fmt.Sprintf("%.0f/s", float64(most)/width)
	var p50, p99 strings.Builder
	const floor, ceiling = 10.0, 20_000.0 // ms, on a logarithmic scale
	level := func(ms float64) float64 {
		ms = min(max(ms, floor), ceiling)
		return t.DelayBottom - (t.DelayBottom-t.DelayTop)*math.Log(ms/floor)/math.Log(ceiling/floor)
	}
	for i, b := range buckets {
		s := stack{X: x(float64(i) * width), Title: fmt.Sprintf("%.0f s: %d in time, %d late, %d without an answer", float64(i)*width, b.ok, b.late, b.lost)}
		s.W = max(x(float64(i+1)*width)-s.X-0.5, 0.5)
		h := func(n int) float64 { return (t.FlowBottom - t.FlowTop) * float64(n) / float64(most) }
		s.OKH, s.LateH, s.LostH = h(b.ok), h(b.late), h(b.lost)
		s.OKY = t.FlowBottom - s.OKH
		s.LateY = s.OKY - s.LateH
		s.LostY = s.LateY - s.LostH
		t.Flow = append(t.Flow, s)
		if len(b.took) > 0 {
			middle := x((float64(i) + 0.5) * width)
			fmt.Fprintf(&p50, "%.1f,%.1f ", middle, level(quantile(b.took, 0.5)))
			fmt.Fprintf(&p99, "%.1f,%.1f ", middle, level(quantile(b.took, 0.99)))
		}
	}
	t.Delays = []curve{{"p99", "p99", p99.String()}, {"p50", "p50", p50.String()}}
	t.InTimeY = level(milliseconds(inTime))
	for _, ms := range []float64{10, 100, 1000, 10_000} {
		t.DelayGrid = append(t.DelayGrid, gridLine{level(ms), readableMS(ms)})
	}
}
