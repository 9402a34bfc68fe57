package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"hanse/client"
	"hanse/internal/dev"
)

// seenFile has what was last seen of the nodes, in the cluster's directory.
const seenFile = "nodes.json"

// seenNodes are the nodes, by their numbers, that were members of the cluster, and those that are none any more. It is what one has to
// know before they are started again: nobody is there to be asked then.
type seenNodes struct {
	Members        []int `json:"members"`
	Decommissioned []int `json:"decommissioned"`
}

func readSeen(dir string) (s seenNodes, err error) {
	data, err := os.ReadFile(filepath.Join(dir, seenFile))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		return s, fmt.Errorf("read what was seen of the nodes: %w", err)
	}
	return s, nil
}

// shardsFile has the number of shards that the cluster in a directory was made with.
const shardsFile = "shards"

// keepShards returns the number of shards of the cluster in dir, which never changes; of a new one as many as are stated, or 1.
func keepShards(dir string, stated int) (int, error) {
	path, n := filepath.Join(dir, shardsFile), max(stated, 1)
	if _, err := os.Stat(filepath.Join(dir, "node1")); errors.Is(err, fs.ErrNotExist) { // nothing has been made with it yet
		return n, writeFile(path, []byte(strconv.Itoa(n)+"\n"))
	}
	data, err := os.ReadFile(path)
	switch {
	case err == nil:
		has, err := strconv.Atoi(strings.TrimSpace(string(data)))
		switch {
		case err != nil:
			return 0, fmt.Errorf("read the number of shards: %s: %w", path, err)
		case stated != 0 && stated != has:
			return 0, usage("--shards %d: the cluster in %s has %d, for good; leave --shards out, or take another directory", stated, dir, has)
		}
		return has, nil
	case errors.Is(err, fs.ErrNotExist):
		return n, nil // made by a program that did not note it: the nodes know
	}
	return 0, fmt.Errorf("read the number of shards: %w", err)
}

// leaveOut says why node n is not started, and what to do; nothing when it is. It comes after notice.
func (d *devRun) leaveOut(n int) (short, advice string) {
	switch {
	case slices.Contains(d.seen.Decommissioned, n):
		return "has been decommissioned", fmt.Sprintf("node %d has been decommissioned, and is not started", n)
	case slices.Contains(d.seen.Members, n) && !d.resumed[n]:
		return "has lost its directory", fmt.Sprintf("node %d is not started: its directory %s is gone, and the cluster would refuse it with an empty one. Put it back, "+
			"or see hanse node replace %d (here: hanse node forget %d, and hanse dev add)", n, d.nodeDir(n), n, n)
	}
	return "", ""
}

// number is the number of the node of this cluster whose REST address is addr; 0 for another's.
func (d *devRun) number(addr string) int {
	_, text, err := net.SplitHostPort(addr)
	port, err2 := strconv.Atoi(text)
	if above := port - d.opts.port; err == nil && err2 == nil && above >= 0 && above%dev.PortStep == 0 && above/dev.PortStep < dev.MaxNodes && addr == dev.Loopback(port) {
		return above/dev.PortStep + 1
	}
	return 0
}

// look adds what the cluster says of its nodes. A node that has taken another's address is a member.
func (s seenNodes) look(nodes []client.Node, number func(addr string) int) seenNodes {
	var members, gone []int
	for i := range nodes {
		switch n := number(nodes[i].REST); {
		case n == 0 || nodes[i].State == client.Joining:
		case nodes[i].State == client.Decommissioned:
			gone = append(gone, n)
		default:
			members = append(members, n)
		}
	}
	gone = slices.DeleteFunc(gone, func(n int) bool { return slices.Contains(members, n) })
	union := func(a, b []int) []int {
		all := slices.Concat(a, b)
		slices.Sort(all)
		return slices.Compact(all)
	}
	return seenNodes{Members: union(s.Members, members), Decommissioned: union(s.Decommissioned, gone)}
}

// note keeps what the cluster says of its nodes for the next start. Once it runs, this is the only one that changes d.seen.
func (d *devRun) note(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	nodes, err := d.c.Nodes(ctx)
	if err != nil {
		return err
	}
	seen := d.seen.look(nodes, d.number)
	if slices.Equal(seen.Members, d.seen.Members) && slices.Equal(seen.Decommissioned, d.seen.Decommissioned) {
		return nil
	}
	data, err := json.Marshal(seen)
	if err == nil {
		err = writeFile(filepath.Join(d.dir, seenFile), data)
	}
	if err == nil {
		d.seen = seen
	}
	return err
}

// keepNoting notes what becomes of the nodes, a moment after one has come or gone, until ctx ends. What fails is noted the next time.
func (d *devRun) keepNoting(ctx context.Context, changed <-chan struct{}) {
	for {
		_ = d.note(ctx)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
		select { // others may not have heard of it yet
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// startable refuses to start what the cluster has decommissioned. What cannot be found out is tried.
func startable(ctx context.Context, control *dev.Control, name string, port int) error {
	number, ok := processNode(name)
	if !ok {
		return nil
	}
	c, err := devClient(ctx, control, port)
	if err != nil {
		return nil // none runs
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return nil
	}
	d := &devRun{opts: devOptions{port: port}}
	if slices.Contains((seenNodes{}).look(nodes, d.number).Decommissioned, number) {
		return fmt.Errorf("%s has been decommissioned, for good; hanse dev add starts a new one", name)
	}
	return nil
}
