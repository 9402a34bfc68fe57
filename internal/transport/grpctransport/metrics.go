package grpctransport

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	peerConnected = prometheus.NewDesc("transport_peer_connected", "1 when the streams of all classes to the peer are open.", []string{"peer"}, nil)
	peerQueued    = prometheus.NewDesc("transport_peer_queued_bytes", "Bytes that wait to be sent to the peer.", []string{"peer"}, nil)
	peerSent      = prometheus.NewDesc("transport_peer_sent_bytes_total", "Bytes of frames sent to the peer.", []string{"peer"}, nil)
	peerDropped   = prometheus.NewDesc("transport_peer_dropped_messages_total", "Messages to the peer that were refused, or given up while it was away.", []string{"peer"}, nil)

	receivedFrames   = prometheus.NewDesc("transport_received_frames_total", "Frames received.", nil, nil)
	receivedMessages = prometheus.NewDesc("transport_received_messages_total", "Messages received.", nil, nil)
	receivedBytes    = prometheus.NewDesc("transport_received_bytes_total", "Bytes of frames received.", nil, nil)
	refusedStreams   = prometheus.NewDesc("transport_refused_streams_total", "Streams of callers that do not belong here.", nil, nil)
	malformedFrames  = prometheus.NewDesc("transport_malformed_frames_total", "Frames that closed their stream.", nil, nil)
)

var _ prometheus.Collector = (*Transport)(nil)

// Describe implements [prometheus.Collector].
func (t *Transport) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		peerConnected, peerQueued, peerSent, peerDropped,
		receivedFrames, receivedMessages, receivedBytes, refusedStreams, malformedFrames,
	} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (t *Transport) Collect(ch chan<- prometheus.Metric) {
	metric := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, v, labels...)
	}
	for _, p := range t.Peers() {
		peer, connected := strconv.FormatUint(uint64(p.ID), 10), 0.0
		if p.Connected {
			connected = 1
		}
		metric(peerConnected, prometheus.GaugeValue, connected, peer)
		metric(peerQueued, prometheus.GaugeValue, float64(p.Queued), peer)
		metric(peerSent, prometheus.CounterValue, float64(p.SentBytes), peer)
		metric(peerDropped, prometheus.CounterValue, float64(p.Dropped), peer)
	}
	r := t.Received()
	metric(receivedFrames, prometheus.CounterValue, float64(r.Frames))
	metric(receivedMessages, prometheus.CounterValue, float64(r.Messages))
	metric(receivedBytes, prometheus.CounterValue, float64(r.Bytes))
	metric(refusedStreams, prometheus.CounterValue, float64(r.Refused))
	metric(malformedFrames, prometheus.CounterValue, float64(r.Malformed))
}
