package psp

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"time"
)

const (
	// maxCallbacks bounds the callbacks that are under way or waiting for their delay; beyond, they are dropped.
	maxCallbacks = 256
	// callbackPatience bounds one callback.
	callbackPatience = 5 * time.Second
)

// callbacks tell a merchant that something has happened.
type callbacks struct {
	http    *http.Client
	slots   chan struct{}
	stopped chan struct{}
	running sync.WaitGroup
	failed  func(err error)
}

func newCallbacks(failed func(err error)) *callbacks {
	transport := &http.Transport{MaxConnsPerHost: 16, MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute}
	return &callbacks{
		http: &http.Client{Timeout: callbackPatience, Transport: transport}, failed: failed,
		slots: make(chan struct{}, maxCallbacks), stopped: make(chan struct{}),
	}
}

// send reports a call, after a delay and perhaps twice.
func (c *callbacks) send(url string, call *Call, delay time.Duration, twice bool) {
	select {
	case c.slots <- struct{}{}:
	default:
		return // callbacks promise nothing
	}
	body, err := json.Marshal(callbackBody{PaymentID: call.PaymentID, Operation: call.Key, Type: call.Kind})
	if err != nil {
		<-c.slots
		c.failed(err)
		return
	}
	c.running.Go(func() {
		defer func() { <-c.slots }()
		if delay > 0 {
			select {
			case <-time.After(delay):
			case <-c.stopped:
				return
			}
		}
		c.post(url, body)
		if twice {
			c.post(url, body)
		}
	})
}

type callbackBody struct {
	PaymentID string `json:"payment_id"`
	Operation string `json:"operation"`
	Type      string `json:"type"`
}

func (c *callbacks) post(url string, body []byte) {
	resp, err := c.http.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		c.failed(err)
		return
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16)) // only to use the connection again
}

// stop ends the delays and returns when no callback is under way.
func (c *callbacks) stop() {
	close(c.stopped)
	c.running.Wait()
	c.http.CloseIdleConnections()
}
