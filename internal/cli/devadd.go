package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"hanse/client"
	"hanse/internal/dev"
)

// addedNode is a node that joined a development cluster. Its number in the cluster is that of its ports, as long as each that was
// added has joined.
type addedNode struct {
	Node  int      `json:"node"`
	Zone  string   `json:"zone,omitempty"`
	Roles []string `json:"roles,omitempty"`
}

// addedFile lists the added nodes in the cluster's directory, so that they come back with it, and tokenFile has the token that the
// newest joins with.
const (
	addedFile = "added.json"
	tokenFile = "join-token"
)

func readAdded(dir string) (added []addedNode, err error) {
	data, err := os.ReadFile(filepath.Join(dir, addedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &added)
	}
	if err != nil {
		return nil, fmt.Errorf("read which nodes were added: %w", err)
	}
	return added, nil
}

// writeFile replaces a file of the cluster's directory as a whole.
func writeFile(path string, data []byte) error {
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// add plans one more node. It is noted before it starts: from then on it may have data.
func (d *devRun) add(program string, n dev.Addition) (dev.Process, error) {
	number := d.opts.nodes + 1
	if len(d.added) > 0 {
		number = d.added[len(d.added)-1].Node + 1
	}
	if number > dev.MaxNodes {
		return dev.Process{}, fmt.Errorf("a development cluster has at most %d nodes", dev.MaxNodes)
	}
	if err := dev.CheckPorts(nodeAddrs(dev.NodePorts(d.opts.port, number))...); err != nil {
		return dev.Process{}, fmt.Errorf("node %d: %w", number, err)
	}
	node := addedNode{Node: number, Zone: n.Zone, Roles: n.Roles}
	if node.Zone == "" {
		node.Zone = d.zone(number)
	}
	added := append(slices.Clone(d.added), node)
	data, err := json.Marshal(added)
	if err == nil {
		err = writeFile(filepath.Join(d.dir, addedFile), data)
	}
	if err != nil {
		return dev.Process{}, fmt.Errorf("note node %d: %w", number, err)
	}
	d.added = added
	return d.joining(program, node), nil
}

// joining is the process of a node that was added. It joins when its directory is empty, and otherwise just goes on.
func (d *devRun) joining(program string, n addedNode) dev.Process {
	var others []string
	for o := 1; o < n.Node; o++ { // numbers have no gaps
		others = append(others, dev.Loopback(dev.NodePorts(d.opts.port, o).HTTP))
	}
	more := []string{"--join", strings.Join(others, ","), "--join-token-file", filepath.Join(d.dir, tokenFile)}
	if len(n.Roles) > 0 {
		more = append(more, "--roles", strings.Join(n.Roles, ","))
	}
	return dev.Process{Name: fmt.Sprintf("node %d", n.Node), Command: d.serve(program, n.Node, n.Zone, more...)}
}

func (a *app) devAddCmd(port *int) *cobra.Command {
	var n dev.Addition
	cmd := &cobra.Command{Use: "add", Short: "Start one more node, which joins the cluster", Args: cobra.NoArgs,
		Long: "Start one more node on the next ports, let it join the cluster that runs, and watch how it takes its share of the replicas.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			control, err := findDev(*port)
			if err != nil {
				return err
			}
			c, err := devClient(cmd.Context(), control, *port)
			if err != nil {
				return err
			}
			defer c.Close()
			token, err := c.CreateJoinToken(cmd.Context())
			if err != nil {
				return err
			}
			if err := writeFile(filepath.Join(control.Info.Dir, tokenFile), []byte(token+"\n")); err != nil {
				return fmt.Errorf("keep the token: %w", err)
			}
			s, err := control.Add(cmd.Context(), n)
			if err != nil {
				return err
			}
			node, err := a.watchAdded(cmd.Context(), control, c, s.Name, *port)
			if err != nil {
				return err
			}
			return a.print(node, func(w io.Writer) {
				fmt.Fprintf(w, "%s is %s at http://%s and has %s, of which it leads %d\n", s.Name, node.State, node.REST, plural(node.Replicas, "replica"), node.Leaders)
			})
		}}
	cmd.Flags().StringVar(&n.Zone, "zone", "", "its zone; the next one of --zones unless given")
	cmd.Flags().StringSliceVar(&n.Roles, "roles", nil, "services that it hosts; all unless given")
	return cmd
}

// processNode is the number of the node that a process runs.
func processNode(name string) (int, bool) {
	number, ok := strings.CutPrefix(name, "node ")
	n, err := strconv.Atoi(number)
	return n, ok && err == nil
}

// devClient returns a client of the nodes that run.
func devClient(ctx context.Context, control *dev.Control, port int) (*client.Client, error) {
	all, err := control.Status(ctx)
	if err != nil {
		return nil, err
	}
	var addrs []string
	for _, s := range all {
		if n, ok := processNode(s.Name); ok && s.State == dev.Running {
			addrs = append(addrs, dev.Loopback(dev.NodePorts(port, n).HTTP))
		}
	}
	if len(addrs) == 0 {
		return nil, errors.New("no node runs: start one with hanse dev start")
	}
	return client.New(client.Config{Addrs: addrs, Pinned: true})
}

// settled is how many looks in a row have to find nothing that moves before the replicas count as balanced: a plan is made every now
// and then, and what it says is begun a little later.
const settled = 10

// watchAdded waits until an added node is active and the replicas have come to rest, and shows how they move.
func (a *app) watchAdded(ctx context.Context, control *dev.Control, c *client.Client, name string, port int) (node *client.Node, err error) {
	number, _ := processNode(name)
	addr := dev.Loopback(dev.NodePorts(port, number).HTTP)
	calm := 0
	err = a.watch(ctx, name+" goes on by itself; hanse node list and hanse shard list show how far it is.", func(ctx context.Context) (bool, string, error) {
		all, err := control.Status(ctx)
		if err != nil {
			return false, "", err
		}
		for _, s := range all {
			if s.Name == name && s.State != dev.Running {
				return false, "", fmt.Errorf("%s is %s (%s):\n%s", name, s.State, s.Exit, dev.Tail(s.Log, 8))
			}
		}
		v, err := c.Overview(ctx)
		if err != nil {
			return false, "", err
		}
		i := slices.IndexFunc(v.Nodes, func(n client.Node) bool { return n.REST == addr && n.State != client.Decommissioned })
		if i < 0 || v.Nodes[i].State == client.Joining {
			return false, name + " joins", nil
		}
		node = &v.Nodes[i]
		s, err := c.Shards(ctx)
		if err != nil {
			return false, "", err
		}
		var moves []string
		for _, sh := range s.Shards {
			if sh.Move != nil {
				moves = append(moves, sh.ID+" "+describeMove(sh.Move))
			}
		}
		if calm++; len(moves) > 0 || node.Health != client.Healthy {
			calm = 0
		}
		progress := fmt.Sprintf("%s is %s, %s, and has %s", name, node.State, healthOf(node), plural(node.Replicas, "replica"))
		if len(moves) > 0 {
			progress += "; moving: " + strings.Join(moves, "; ")
		}
		return calm >= settled, progress, nil
	})
	return node, err
}
