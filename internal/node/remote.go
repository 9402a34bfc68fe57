package node

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/time/rate"

	"hanse/internal/replica"
	"hanse/internal/transport"
)

// remoteWarnings bounds the warnings about requests of other nodes, per second.
const remoteWarnings = 20

// remoteLog tells what this node did for requests that came in at other nodes, under the trace that they have there. What belongs
// to no request, such as the deliveries between shards, is left out.
type remoteLog struct {
	log      *slog.Logger
	slow     time.Duration
	warnings *rate.Limiter
}

func newRemoteLog(log *slog.Logger, slow time.Duration) *remoteLog {
	return &remoteLog{log: log, slow: slow, warnings: rate.NewLimiter(remoteWarnings, remoteWarnings)}
}

func (l *remoteLog) answered(from transport.NodeID, q *request, took time.Duration, err error) {
	if q.trace.IsZero() {
		return
	}
	level, message := slog.LevelDebug, "request of another node served"
	switch {
	case errors.Is(err, replica.ErrOutcomeUnknown):
		level, message = slog.LevelWarn, "request of another node without an outcome"
	case took > l.slow:
		level, message = slog.LevelWarn, "request of another node slow"
	}
	ctx := context.Background()
	if !l.log.Enabled(ctx, level) || level == slog.LevelWarn && !l.warnings.Allow() {
		return
	}
	//nolint:sloglint // one of the constants above
	l.log.LogAttrs(ctx, level, message, slog.String("trace", q.trace.String()), slog.String("shard", q.shard.String()),
		slog.Uint64("from", uint64(from)), slog.Duration("took", took), slog.Any("err", err))
}
