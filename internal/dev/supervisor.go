package dev

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Process is a child to run.
type Process struct {
	// Name is unique, for example "node 2"; its log is <Dir>/<name without blanks>.log.
	Name string
	// Command is the program and its arguments.
	Command []string
	// Env is added to the supervisor's own environment.
	Env []string
}

// State of a process.
type State string

// The states.
const (
	Running State = "running"
	Killed  State = "killed"  // by us, with SIGKILL
	Stopped State = "stopped" // by us, with SIGTERM
	Crashed State = "crashed" // it ended by itself, with a fault
	Ended   State = "ended"   // it ended by itself, in order: a node that was decommissioned does
)

// Status tells about one process.
type Status struct {
	Name  string    `json:"name"`
	State State     `json:"state"`
	PID   int       `json:"pid,omitempty"`
	Since time.Time `json:"since"`
	// Exit is how the last run ended, for example "exit status 1".
	Exit string `json:"exit,omitempty"`
	Log  string `json:"log"`
}

// Config of a supervisor.
type Config struct {
	// Dir holds the log files; it exists.
	Dir string
	// Temporary says that the caller removes Dir when Run has returned. When it was killed before it could, the next
	// supervisor of the same name does.
	Temporary bool
	// Name identifies the cluster on this machine: the first port. The control socket is named after it.
	Name string
	// Runtime is the directory of the control socket. Default: the temporary directory, for a socket's path is short.
	Runtime string
	// Grace is how long a process may take to end after SIGTERM before it is killed. Default 5 s: a node hands over
	// its leaderships and closes its store in well under one.
	Grace time.Duration
	// Processes in the order of their start.
	Processes []Process
	// Add says how one more process is started that is asked for over the control socket; nil: none can be. Run calls it.
	Add func(Addition) (Process, error)
	// Report is told each change of state, one at a time; nil for no one.
	Report func(Status)
}

// Addition is a node to add.
type Addition struct {
	Zone  string   `json:"zone,omitempty"`
	Roles []string `json:"roles,omitempty"`
}

// DefaultConfig returns the defaults.
func DefaultConfig() Config { return Config{Runtime: os.TempDir(), Grace: 5 * time.Second} }

// Supervisor owns a set of child processes.
type Supervisor struct {
	cfg      Config
	procs    []*proc
	requests chan request
	exits    chan exit
	overdue  chan *exec.Cmd
	started  chan struct{}
	done     chan struct{} // closed when Run returns
}

// proc is owned by Run's goroutine.
type proc struct {
	Process
	status  Status
	cmd     *exec.Cmd // nil when it does not run
	ending  State     // what its end will mean; Crashed unless we asked for it
	waiting []chan<- answer
	grace   *time.Timer // kills after a stop; nil without one
}

type request struct {
	act, name string
	add       Addition // for the act "add"
	answer    chan<- answer
}

type answer struct {
	status []Status
	err    error
}

type exit struct {
	cmd *exec.Cmd
	err error
}

// New returns a supervisor that has started nothing.
func New(cfg Config) *Supervisor {
	s := &Supervisor{
		cfg: cfg, requests: make(chan request), exits: make(chan exit), overdue: make(chan *exec.Cmd),
		started: make(chan struct{}), done: make(chan struct{}),
	}
	for _, p := range cfg.Processes {
		s.procs = append(s.procs, s.newProc(p))
	}
	return s
}

func (s *Supervisor) newProc(p Process) *proc {
	log := filepath.Join(s.cfg.Dir, strings.ReplaceAll(p.Name, " ", "")+".log")
	return &proc{Process: p, status: Status{Name: p.Name, State: Stopped, Log: log}}
}

// Started is closed when every process has been started.
func (s *Supervisor) Started() <-chan struct{} { return s.started }

// Run starts all processes and keeps them until ctx ends, then stops them and returns. An error is that of a
// process that could not be started, or of the control socket.
func (s *Supervisor) Run(ctx context.Context) (err error) {
	// The kernel's parent-death signal is tied to the thread that started the child, not to the
	// process. Run keeps its thread, so that children outlive no idle one.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(s.done)
	closeControl, err := s.serveControl()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeControl()) }()
	defer s.stopAll()
	for _, p := range s.procs {
		if err := s.start(p); err != nil {
			return err
		}
	}
	close(s.started)
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-s.requests:
			s.handle(r)
		case e := <-s.exits:
			s.ended(e)
		case cmd := <-s.overdue:
			s.killOverdue(cmd)
		}
	}
}

func (s *Supervisor) handle(r request) {
	if r.act == "status" {
		var all []Status
		for _, p := range s.procs {
			all = append(all, p.status)
		}
		r.answer <- answer{status: all}
		return
	}
	if r.act == "add" {
		p, err := s.add(r.add)
		if err != nil {
			r.answer <- answer{err: err}
			return
		}
		r.answer <- answer{status: []Status{p.status}}
		return
	}
	i := slices.IndexFunc(s.procs, func(p *proc) bool { return p.Name == r.name })
	if i < 0 {
		r.answer <- answer{err: fmt.Errorf("there is no %s here", r.name)}
		return
	}
	p := s.procs[i]
	switch {
	case r.act == "start" && p.cmd != nil:
		r.answer <- answer{err: fmt.Errorf("%s runs already", p.Name)}
	case r.act == "start":
		err := s.start(p)
		r.answer <- answer{status: []Status{p.status}, err: err}
	case p.cmd == nil:
		r.answer <- answer{err: fmt.Errorf("%s does not run: it is %s", p.Name, p.status.State)}
	case r.act == "kill":
		p.waiting = append(p.waiting, r.answer)
		s.kill(p)
	case r.act == "stop":
		p.waiting = append(p.waiting, r.answer)
		s.terminate(p)
	default:
		r.answer <- answer{err: fmt.Errorf("%q is nothing to do to a process", r.act)}
	}
}

// add starts one more process. One that could not be started stays, and can be once more.
func (s *Supervisor) add(a Addition) (*proc, error) {
	if s.cfg.Add == nil {
		return nil, errors.New("nothing can be added here")
	}
	added, err := s.cfg.Add(a)
	if err != nil {
		return nil, err
	}
	p := s.newProc(added)
	s.procs = append(s.procs, p)
	return p, s.start(p)
}

func (s *Supervisor) start(p *proc) error {
	log, err := os.OpenFile(p.status.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", p.Name, err)
	}
	defer log.Close() // the child has its own descriptor
	cmd := exec.Command(p.Command[0], p.Command[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), p.Env...)
	cmd.SysProcAttr = childAttributes()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	p.cmd, p.ending = cmd, Crashed
	s.change(p, Running, cmd.Process.Pid, "")
	go func() { s.exits <- exit{cmd, cmd.Wait()} }() // taken by Run or, in the end, by stopAll
	return nil
}

func (s *Supervisor) change(p *proc, state State, pid int, how string) {
	p.status.State, p.status.PID, p.status.Exit, p.status.Since = state, pid, how, time.Now()
	if s.cfg.Report != nil {
		s.cfg.Report(p.status)
	}
}

func (s *Supervisor) kill(p *proc) {
	p.ending = Killed
	_ = p.cmd.Process.Kill() // an error means that it has ended: its exit is on the way
}

func (s *Supervisor) terminate(p *proc) {
	p.ending = Stopped
	cmd := p.cmd
	_ = cmd.Process.Signal(syscall.SIGTERM)
	p.grace = time.AfterFunc(s.cfg.Grace, func() {
		select {
		case s.overdue <- cmd:
		case <-s.done:
		}
	})
}

func (s *Supervisor) killOverdue(cmd *exec.Cmd) {
	for _, p := range s.procs {
		if p.cmd == cmd {
			_ = cmd.Process.Kill()
		}
	}
}

func (s *Supervisor) ended(e exit) {
	for _, p := range s.procs {
		if p.cmd != e.cmd {
			continue
		}
		p.cmd = nil
		if p.grace != nil {
			p.grace.Stop()
			p.grace = nil
		}
		how := p.ending
		if how == Crashed && e.cmd.ProcessState.Success() {
			how = Ended
		}
		s.change(p, how, 0, e.cmd.ProcessState.String())
		for _, w := range p.waiting {
			w <- answer{status: []Status{p.status}}
		}
		p.waiting = nil
	}
}

// stopAll ends every process: asked first, killed when it takes longer than Grace.
func (s *Supervisor) stopAll() {
	running := func() bool { return slices.ContainsFunc(s.procs, func(p *proc) bool { return p.cmd != nil }) }
	for _, p := range slices.Backward(s.procs) {
		if p.cmd != nil {
			p.ending = Stopped
			_ = p.cmd.Process.Signal(syscall.SIGTERM)
		}
	}
	grace := time.NewTimer(s.cfg.Grace)
	defer grace.Stop()
	for running() {
		select {
		case e := <-s.exits:
			s.ended(e)
		case r := <-s.requests:
			r.answer <- answer{err: errors.New("the cluster is stopping")}
		case <-s.overdue:
		case <-grace.C:
			for _, p := range s.procs {
				if p.cmd != nil {
					_ = p.cmd.Process.Kill()
				}
			}
		}
	}
}
