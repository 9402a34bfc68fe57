package rest

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"hanse/api/orderpb"
)

const threeLines = `{"customer_id":"c17850","currency":"GBP","lines":[{"sku":"85123A","quantity":6,"unit_price":255},{"sku":"71053","quantity":6,"unit_price":339},{"sku":"84406B","quantity":8,"unit_price":275}],"payment":{"method":"card"},"merchant_reference":"536365"}`

// instant answers every order at once, so that the door alone is measured.
type instant struct {
	*fake
	order *orderpb.Order
}

func (i *instant) Place(context.Context, Request, *orderpb.Place, time.Duration) (Answer[*orderpb.Order], error) {
	return Answer[*orderpb.Order]{Value: i.order, Mark: "order/1:77"}, nil
}

func instantDoor(tb testing.TB) http.Handler {
	p, err := decodePlace([]byte(threeLines))
	if err != nil {
		tb.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Registerer = prometheus.NewRegistry()
	return New(cfg, &instant{order: placedOrder(p)}, newDiscard())
}

// sink is a response writer that costs nothing.
type sink struct {
	header http.Header
	status int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(status int)      { s.status = status }
func (s *sink) Write(b []byte) (int, error) { return len(b), nil }

// BenchmarkPlace is the door without net/http: mux, key, parsing, encoding, metrics.
func BenchmarkPlace(b *testing.B) {
	door := instantDoor(b)
	body := bytes.NewReader(nil)
	r := httptest.NewRequest("POST", "/v1/orders", nil)
	r.Header["Idempotency-Key"] = []string{"536365"}
	r.ContentLength = int64(len(threeLines))
	r.Body = io.NopCloser(body)
	w := &sink{header: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		body.Reset([]byte(threeLines))
		clear(w.header)
		door.ServeHTTP(w, r)
		if w.status != http.StatusCreated {
			b.Fatal(w.status)
		}
	}
}

func BenchmarkDecodePlace(b *testing.B) {
	data := []byte(threeLines)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodePlace(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDigest(b *testing.B) {
	data := []byte(threeLines)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		newDigest().json(data)
	}
}

func BenchmarkAppendOrder(b *testing.B) {
	p, err := decodePlace([]byte(threeLines))
	if err != nil {
		b.Fatal(err)
	}
	o := placedOrder(p)
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		e := encoder{b: buf[:0]}
		appendOrder(&e, o, true)
		buf = e.b
	}
	b.SetBytes(int64(len(buf)))
}
