package health

import (
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
)

// TestScripts plays what happens to a cluster, and shows what its nodes say about one another. -rewrite writes the answers.
//
//	cluster nodes=N        begins anew
//	run for=5s             says what was reported meanwhile, at which second since the beginning
//	show                   says what each says of each
//	cut links=(1-2,3>4)    drops what is sent between 1 and 2, and from 3 to 4
//	slow links=(1-2) by=60ms
//	mend                   all links
//	kill, start, freeze, thaw node=N
//	set node=N [clock=1h] [delay=240ms] [stalled=1s]
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		w := newWorld(0, 1)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			node := func() *host {
				var id uint64
				d.ScanArgs(t, "node", &id)
				return w.host(id)
			}
			duration := func(key string, into *time.Duration) {
				if d.HasArg(key) {
					var text string
					d.ScanArgs(t, key, &text)
					v, err := time.ParseDuration(text)
					if err != nil {
						d.Fatalf(t, "%v", err)
					}
					*into = v
				}
			}
			switch d.Cmd {
			case "cluster":
				var n int
				d.ScanArgs(t, "nodes", &n)
				w = newWorld(n, 1)
			case "run":
				var long time.Duration
				duration("for", &long)
				w.run(long)
				return w.changes()
			case "show":
				return w.judgements()
			case "cut":
				for _, arg := range d.CmdArgs {
					for _, link := range arg.Vals {
						var a, b uint64
						var sign rune
						if _, err := fmt.Sscanf(link, "%d%c%d", &a, &sign, &b); err != nil {
							d.Fatalf(t, "%q: %v", link, err)
						}
						w.cut[[2]uint64{a, b}] = true
						if sign == '-' {
							w.cut[[2]uint64{b, a}] = true
						}
					}
				}
			case "slow":
				var link string
				var a, b uint64
				d.ScanArgs(t, "links", &link)
				if _, err := fmt.Sscanf(link, "%d-%d", &a, &b); err != nil {
					d.Fatalf(t, "%q: %v", link, err)
				}
				var by time.Duration
				duration("by", &by)
				w.late[[2]uint64{a, b}], w.late[[2]uint64{b, a}] = by, by
			case "mend":
				clear(w.cut)
				clear(w.late)
			case "kill":
				node().kill()
			case "start":
				node().start()
			case "freeze":
				node().frozen = true
			case "thaw":
				node().thaw()
			case "set":
				h := node()
				duration("clock", &h.clock)
				duration("delay", &h.delay)
				duration("stalled", &h.stalled)
			default:
				d.Fatalf(t, "unknown command %q", d.Cmd)
			}
			return ""
		})
	})
}
