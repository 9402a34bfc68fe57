package metashard

import (
	"testing"

	"hanse/api/metapb"
)

// Every node looks every so often; nearly always nothing is newer.
func BenchmarkLook(b *testing.B) {
	for _, bb := range []struct {
		name   string
		shards int
		newer  uint64
	}{{"nothing newer", 11, 1 << 40}, {"12 shards", 11, 0}, {"4,097 shards", 4096, 0}} {
		b.Run(bb.name, func(b *testing.B) {
			m := newMeta(b)
			m.must(founding(bb.shards))
			m.Restart()
			q := encode(&metapb.Query{Body: &metapb.Query_Look{Look: &metapb.Look{NewerThan: bb.newer}}})
			b.ReportAllocs()
			for b.Loop() {
				m.Query(q)
			}
		})
	}
}
