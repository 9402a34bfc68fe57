package node

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"hanse/api/metapb"
	"hanse/internal/cluster"
	"hanse/internal/reject"
	"hanse/internal/rest"
	"hanse/internal/shard"
	"hanse/internal/store"
)

const (
	// joinPause is the time between rounds of asking, joinTimeout bounds one question, and joinAnswer the search for its answer: who asks is to
	// hear why there is none.
	joinPause   = 500 * time.Millisecond
	joinTimeout = 5 * time.Second
	joinAnswer  = 3 * time.Second
	// maxJoinAnswer bounds what is read of an answer: the view of the largest cluster.
	maxJoinAnswer = 16 << 20
)

// joinKey has the number that an application is known by, from before the first question: after a crash the same application goes on,
// and does not find its own name taken.
var joinKey = []byte("n/join")

// joiner asks a cluster to admit this node.
type joiner struct {
	cfg    Config
	engine store.Engine
	log    *slog.Logger
	now    func() time.Time
}

// join asks the nodes of Config.Join in turn, until one admits or refuses. What is admitted is on disk when it returns.
func (j *joiner) join(ctx context.Context) (identity, error) {
	process, err := j.application()
	if err != nil {
		return identity{}, err
	}
	asking, cancel := context.WithTimeout(ctx, j.cfg.JoinPatience)
	defer cancel()
	var last error
	for {
		for _, address := range j.cfg.Join {
			answer, err := j.ask(asking, address, process)
			if err == nil {
				return j.admitted(answer)
			}
			if _, refused := errors.AsType[*joinRefusal](err); refused {
				return identity{}, fmt.Errorf("%s does not admit this node: %w", address, err)
			}
			if asking.Err() != nil && last != nil {
				break // cut off, which says less than the answer before
			}
			last = err
			j.log.Warn("no answer to the request to join, asking on", "address", address, "err", err)
		}
		select {
		case <-asking.Done():
			if ctx.Err() != nil {
				return identity{}, fmt.Errorf("join: %w", ctx.Err())
			}
			return identity{}, fmt.Errorf("join: nobody could answer within %v: %w; is the cluster up, with a majority of its nodes?", j.cfg.JoinPatience, last)
		case <-time.After(joinPause):
		}
	}
}

func (j *joiner) application() (uint64, error) {
	data, err := j.engine.Get(joinKey)
	if err == nil && len(data) == 8 {
		return binary.BigEndian.Uint64(data), nil
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return 0, fmt.Errorf("read application: %w", err)
	}
	process := rand.Uint64() | 1
	b := j.engine.NewBatch()
	defer b.Close()
	b.Set(joinKey, binary.BigEndian.AppendUint64(nil, process))
	if err := j.engine.Apply(b, true); err != nil {
		return 0, fmt.Errorf("write application: %w", err)
	}
	return process, nil
}

// joinRefusal is an answer that asking again would not change.
type joinRefusal struct{ detail string }

func (e *joinRefusal) Error() string { return e.detail }

func (j *joiner) ask(ctx context.Context, address string, process uint64) (*rest.JoinAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	httpAddr, peer, gossip := j.cfg.Advertised()
	body, err := json.Marshal(rest.NodeJoin{
		Cluster: j.cfg.ClusterID, Name: cmp.Or(j.cfg.Name, strings.NewReplacer(":", "-", "[", "", "]", "").Replace(httpAddr)), HTTP: httpAddr, Peers: peer, Gossip: gossip, Zone: j.cfg.Zone, Roles: j.cfg.Roles,
		Version: j.cfg.Version, Format: formatVersion, Features: cluster.FeatureLevel, Process: strconv.FormatUint(process, 10), Replaces: j.cfg.Replace,
		Clock: j.now().UnixNano(),
	})
	if err != nil {
		return nil, fmt.Errorf("encode the request to join: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/v1/nodes", bytes.NewReader(body))
	if err != nil {
		return nil, &joinRefusal{fmt.Sprintf("address %q: %v", address, err)}
	}
	req.Header.Set("Authorization", "Bearer "+j.cfg.JoinToken)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxJoinAnswer))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusCreated {
		var problem struct{ Code, Detail string }
		if json.Unmarshal(data, &problem) != nil || problem.Code == "" {
			return nil, fmt.Errorf("status %d", resp.StatusCode)
		}
		switch { // a cluster that has just been started will be founded in a moment
		case resp.StatusCode >= 500, resp.StatusCode == http.StatusTooManyRequests, problem.Code == reject.NotFounded:
			return nil, errors.New(problem.Detail)
		}
		return nil, &joinRefusal{problem.Code + ": " + problem.Detail}
	}
	var answer struct {
		Node    uint64 `json:"node"`
		Cluster string `json:"cluster"`
		View    []byte `json:"view"`
		PSP     string `json:"psp"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return nil, fmt.Errorf("unreadable answer: %w", err)
	}
	return &rest.JoinAnswer{Node: answer.Node, Cluster: answer.Cluster, View: answer.View, PSP: answer.PSP}, nil
}

// admitted makes the directory that of the node which the cluster has given a number.
func (j *joiner) admitted(a *rest.JoinAnswer) (identity, error) {
	v := new(metapb.View)
	if err := v.UnmarshalVT(a.View); err != nil {
		return identity{}, fmt.Errorf("join: decode the view of the cluster: %w", err)
	}
	if v.Cluster == nil || a.Node == 0 {
		return identity{}, errors.New("join: the answer has no number for this node, or no cluster")
	}
	id := identity{
		Format: formatVersion, Cluster: v.Cluster.Id, Node: a.Node, Replicas: int(v.Cluster.Replicas), Joined: true, PSP: a.PSP, Layout: make(map[string]int),
	}
	for _, s := range v.Cluster.Layout {
		id.Layout[shard.Service(s.Service).String()] = int(s.Shards)
	}
	if err := id.layout().Validate(); err != nil {
		return identity{}, fmt.Errorf("join: cluster %q: %w: use a newer hanse", id.Cluster, err)
	}
	if err := saveView(j.engine, v, false); err != nil {
		return identity{}, err
	}
	if err := saveIdentity(j.engine, id); err != nil { // last, and synced with what came before
		return identity{}, err
	}
	j.log.Info("joined", "cluster", id.Cluster, "node", id.Node, "nodes", len(v.Nodes))
	return id, nil
}

// peerList names some nodes for people.
func peerList(nodes []uint64) string {
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = fmt.Sprint(n)
	}
	return strings.Join(names, ", ")
}
