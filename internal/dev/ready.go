package dev

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// readyPoll is the time between two questions to a node that is not ready: a start takes a second or so.
const readyPoll = 50 * time.Millisecond

// WaitReady asks each URL until it answers 200. On ctx's end it says what the first URL that was not ready answered.
func WaitReady(ctx context.Context, urls ...string) error {
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for _, url := range urls {
		last := "no answer yet"
		for {
			ok, why := ready(ctx, client, url)
			if ok {
				break
			}
			if ctx.Err() == nil {
				last = why
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s is not ready (%s): %w", url, last, context.Cause(ctx))
			case <-time.After(readyPoll):
			}
		}
	}
	return nil
}

func ready(ctx context.Context, client *http.Client, url string) (bool, string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false, err.Error()
	}
	resp, err := client.Do(req)
	if err != nil {
		return false, err.Error()
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
	return resp.StatusCode == http.StatusOK, resp.Status + " " + strings.TrimSpace(string(body))
}
