package pebblestore

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics tells how the store is doing. Counters start at Open.
type Metrics struct {
	// Syncs counts the synced writes, SyncTime is the time they took together, from the call to its
	// return: a sync in Pebble serves all writers that wait.
	Syncs    uint64
	SyncTime time.Duration
	// SyncSeconds counts the synced writes by time: the key is the upper bound of a bucket in seconds, and
	// each bucket contains those before it.
	SyncSeconds map[float64]uint64
	// LogBytes counts the bytes written to the log, LogSizeBytes is the size of what a restart has to replay.
	LogBytes, LogSizeBytes uint64
	// MemTables and MemTableBytes are what waits in memory to be flushed, the present one included.
	MemTables     int
	MemTableBytes uint64
	// L0Sublevels is how many tables of level 0 lie over each other where they do most, L0Files how many tables there are. Above
	// 8 to 20 sublevels compactions are behind, and a node should refuse work.
	L0Sublevels, L0Files int
	// ReadAmp is how many sublevels and levels a read has to look at.
	ReadAmp int
	// CompactionDebtBytes is what compactions would have to move to catch up.
	CompactionDebtBytes uint64
	// Stalled says that writes wait now, Stalls how often they began to.
	Stalled bool
	Stalls  uint64
	// CacheHits and CacheMisses count block reads.
	CacheHits, CacheMisses uint64
	// DiskBytes is the space the store takes, files that only snapshots and iterators need included.
	DiskBytes uint64
	// Snapshots counts the open snapshots that are not yet held by files alone.
	Snapshots int
}

// Metrics returns the present figures. It takes Pebble's main lock for a moment: a few calls a second do no harm. It
// returns zeros after Close.
func (s *Store) Metrics() Metrics {
	if err := s.use(); err != nil {
		return Metrics{}
	}
	defer s.mu.RUnlock()
	p := s.db.Metrics()
	m := Metrics{
		LogBytes:            p.WAL.BytesWritten,
		LogSizeBytes:        p.WAL.Size,
		MemTables:           int(p.MemTable.Count),
		MemTableBytes:       p.MemTable.Size,
		L0Sublevels:         int(p.Levels[0].Sublevels),
		L0Files:             int(p.Levels[0].TablesCount),
		ReadAmp:             p.ReadAmp(),
		CompactionDebtBytes: p.Compact.EstimatedDebt,
		Stalled:             s.stalled.Load(),
		Stalls:              s.stalls.Load(),
		CacheHits:           uint64(p.BlockCache.Hits),
		CacheMisses:         uint64(p.BlockCache.Misses),
		DiskBytes:           p.DiskSpaceUsage(),
		Snapshots:           p.Snapshots.Count,
	}
	m.Syncs, m.SyncTime, m.SyncSeconds = s.syncs.read()
	return m
}

// syncBounds are the upper bounds of the buckets of sync times: an NVMe disk takes 0.1 ms, a disk in trouble seconds.
var syncBounds = [...]time.Duration{
	100 * time.Microsecond, 200 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond,
	10 * time.Millisecond, 20 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 500 * time.Millisecond, time.Second, 10 * time.Second,
}

// syncTimes is a histogram; its last bucket has no bound.
type syncTimes struct {
	buckets [len(syncBounds) + 1]atomic.Uint64
	total   atomic.Int64
}

func (h *syncTimes) add(took time.Duration) {
	i := 0
	for i < len(syncBounds) && took > syncBounds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.total.Add(int64(took))
}

func (h *syncTimes) read() (count uint64, total time.Duration, cumulative map[float64]uint64) {
	cumulative = make(map[float64]uint64, len(syncBounds))
	for i := range h.buckets {
		count += h.buckets[i].Load()
		if i < len(syncBounds) {
			cumulative[syncBounds[i].Seconds()] = count
		}
	}
	return count, time.Duration(h.total.Load()), cumulative
}

var (
	syncSeconds    = prometheus.NewDesc("store_sync_duration_seconds", "Time of synced writes.", nil, nil)
	logBytes       = prometheus.NewDesc("store_log_bytes_total", "Bytes written to the log.", nil, nil)
	logSize        = prometheus.NewDesc("store_log_size_bytes", "Size of the log that a restart replays.", nil, nil)
	memTables      = prometheus.NewDesc("store_memtables", "Memtables, the present one included.", nil, nil)
	memTableBytes  = prometheus.NewDesc("store_memtable_bytes", "Bytes of the memtables.", nil, nil)
	l0Sublevels    = prometheus.NewDesc("store_l0_sublevels", "Sublevels of level 0.", nil, nil)
	l0Files        = prometheus.NewDesc("store_l0_files", "Tables in level 0.", nil, nil)
	readAmp        = prometheus.NewDesc("store_read_amplification", "Levels and sublevels that a read looks at.", nil, nil)
	compactionDebt = prometheus.NewDesc("store_compaction_debt_bytes", "Bytes that compactions are behind.", nil, nil)
	stalls         = prometheus.NewDesc("store_write_stalls_total", "How often writes began to wait for flushes or compactions.", nil, nil)
	stalled        = prometheus.NewDesc("store_write_stalled", "1 while writes wait.", nil, nil)
	cacheHits      = prometheus.NewDesc("store_cache_hits_total", "Block reads from the cache.", nil, nil)
	cacheMisses    = prometheus.NewDesc("store_cache_misses_total", "Block reads from disk.", nil, nil)
	diskBytes      = prometheus.NewDesc("store_disk_bytes", "Space the store takes.", nil, nil)
	snapshots      = prometheus.NewDesc("store_snapshots", "Open snapshots that pin memory tables.", nil, nil)
)

var _ prometheus.Collector = (*Store)(nil)

// Describe implements [prometheus.Collector].
func (s *Store) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		syncSeconds, logBytes, logSize, memTables, memTableBytes, l0Sublevels, l0Files, readAmp,
		compactionDebt, stalls, stalled, cacheHits, cacheMisses, diskBytes, snapshots,
	} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (s *Store) Collect(ch chan<- prometheus.Metric) {
	m := s.Metrics()
	metric := func(d *prometheus.Desc, kind prometheus.ValueType, v float64) {
		ch <- prometheus.MustNewConstMetric(d, kind, v)
	}
	ch <- prometheus.MustNewConstHistogram(syncSeconds, m.Syncs, m.SyncTime.Seconds(), m.SyncSeconds)
	metric(logBytes, prometheus.CounterValue, float64(m.LogBytes))
	metric(logSize, prometheus.GaugeValue, float64(m.LogSizeBytes))
	metric(memTables, prometheus.GaugeValue, float64(m.MemTables))
	metric(memTableBytes, prometheus.GaugeValue, float64(m.MemTableBytes))
	metric(l0Sublevels, prometheus.GaugeValue, float64(m.L0Sublevels))
	metric(l0Files, prometheus.GaugeValue, float64(m.L0Files))
	metric(readAmp, prometheus.GaugeValue, float64(m.ReadAmp))
	metric(compactionDebt, prometheus.GaugeValue, float64(m.CompactionDebtBytes))
	metric(stalls, prometheus.CounterValue, float64(m.Stalls))
	waiting := 0.0
	if m.Stalled {
		waiting = 1
	}
	metric(stalled, prometheus.GaugeValue, waiting)
	metric(cacheHits, prometheus.CounterValue, float64(m.CacheHits))
	metric(cacheMisses, prometheus.CounterValue, float64(m.CacheMisses))
	metric(diskBytes, prometheus.GaugeValue, float64(m.DiskBytes))
	metric(snapshots, prometheus.GaugeValue, float64(m.Snapshots))
}
