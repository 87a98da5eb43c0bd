// Command demo shows Skep's main job on this machine: a swarm of three managers and two workers, each in namespaces of its
// own, a service with a secret, a leader that is killed. It leaves the swarm up until Ctrl-C, and then nothing is left.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/skep-io/skep/e2e/lab"
)

// patience bounds every wait: far more than any step takes.
const patience = 60 * time.Second

func main() {
	lab.Main()
	bin := flag.String("bin", "bin", "`directory` of the built programs")
	once := flag.Bool("once", false, "end after the show instead of waiting for Ctrl-C")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, *bin, !*once); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer, bin string, wait bool) (err error) {
	if missing := lab.Missing(); missing != "" {
		return fmt.Errorf("this needs %s: run it as root", missing)
	}
	programs, err := lab.ProgramsIn(bin)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "skep-demo-")
	if err != nil {
		return err
	}
	network, err := lab.NewNetwork(dir, programs)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, network.Close(), os.RemoveAll(dir)) }()
	s := show{out: out, network: network, began: time.Now(), bold: bold(out)}
	if err := s.play(ctx); err != nil {
		return fmt.Errorf("%w\n%s", err, s.logs())
	}
	if !wait {
		return nil
	}
	s.invite(programs.Skep)
	<-ctx.Done()
	fmt.Fprintln(out, "\nEnding the swarm: nothing is left behind.")
	return nil
}

// bold reports whether out is a terminal that may be written to in bold (https://no-color.org).
func bold(out io.Writer) bool {
	file, ok := out.(*os.File)
	return ok && term.IsTerminal(int(file.Fd())) && os.Getenv("NO_COLOR") == ""
}

// show is the demo under way.
type show struct {
	out     io.Writer
	network *lab.Network
	began   time.Time
	bold    bool
}

// play runs the acts in order.
func (s show) play(ctx context.Context) error {
	for _, act := range []func(context.Context) error{s.form, s.serve, s.look, s.killLeader} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s show) say(format string, args ...any) {
	line := fmt.Sprintf("[%5.1fs] %s", time.Since(s.began).Seconds(), fmt.Sprintf(format, args...))
	if s.bold {
		line = "\033[1m" + line + "\033[0m"
	}
	fmt.Fprintf(s.out, "\n%s\n", line)
}

// skep runs a command on a machine and shows both.
func (s show) skep(ctx context.Context, machine string, args ...string) error {
	fmt.Fprintf(s.out, "%s$ skep %s\n", machine, strings.Join(args, " "))
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	text, err := s.network.Machine(machine).Skep(ctx, args...)
	fmt.Fprint(s.out, text)
	return err
}

// form makes the machines and the swarm.
func (s show) form(ctx context.Context) error {
	s.say("Five machines on a network of their own: three to manage, two to work.")
	names := []string{"m1", "m2", "m3", "w1", "w2"}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, name := range names {
		m, err := s.network.NewMachine(name)
		if err != nil {
			return err
		}
		if err := m.Start(ctx); err != nil {
			return err
		}
	}
	s.say("One command makes the swarm, one line joins each machine.")
	if err := s.network.Swarm(ctx, names...); err != nil {
		return err
	}
	if err := s.await(ctx, "m1", func(out string) bool { return strings.Count(out, "Ready") == len(names) }, "node", "ls"); err != nil {
		return err
	}
	return s.skep(ctx, "m1", "node", "ls")
}

// serve makes a secret and a service that reads it.
func (s show) serve(ctx context.Context) error {
	s.say("A secret, and a service of three replicas that reads it, from an image that needs no registry.")
	secret := filepath.Join(s.network.Machine("m1").Dir, "demo-secret")
	if err := os.WriteFile(secret, []byte("the bees know"), 0o600); err != nil {
		return err
	}
	if err := s.skep(ctx, "m1", "secret", "create", "honey", secret); err != nil {
		return err
	}
	if err := os.Remove(secret); err != nil {
		return err
	}
	return s.skep(ctx, "m1", "service", "create", "--quiet", "--name", "web", "--replicas", "3", "--secret", "honey",
		"--limit-memory", "64M", "--limit-cpu", "0.5", "--limit-pids", "100", "--read-only", "--constraint", "node.role==worker",
		"skep.local/hello")
}

// look shows what an operator looks at, and what a container sees of itself.
func (s show) look(ctx context.Context) error {
	s.say("What an operator sees.")
	for _, args := range [][]string{{"service", "ls"}, {"service", "ps", "web"}, {"secret", "ls"}} {
		if err := s.skep(ctx, "m1", args...); err != nil {
			return err
		}
	}
	s.say("Who a task is: its namespaces, users, capabilities, limits, and the digest of its secret.")
	if err := s.await(ctx, "m1", func(out string) bool { return strings.Contains(out, "honey") }, "service", "logs", "--raw", "--tail", "60", "web"); err != nil {
		return err
	}
	task, err := s.network.Machine("m1").Skep(ctx, "service", "ps", "-q", "--no-trunc", "--filter", "name=web.1", "web")
	if err != nil {
		return err
	}
	return s.skep(ctx, "m1", "service", "logs", "--raw", "--tail", "60", strings.TrimSpace(task))
}

// killLeader kills the leader's daemon and shows that the swarm goes on.
func (s show) killLeader(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	leader, err := s.network.Leader(ctx, s.network.Machine("m1"))
	if err != nil {
		return err
	}
	var other *lab.Machine
	for _, m := range s.network.Machines() {
		if m != leader && strings.HasPrefix(m.Name, "m") {
			other = m
			break
		}
	}
	s.say("The leader is %s. Its daemon is killed.", leader.Name)
	if err := leader.Kill(); err != nil {
		return err
	}
	killed := time.Now()
	if err := s.skep(ctx, other.Name, "service", "scale", "--detach", "web=4"); err != nil {
		return err
	}
	s.say("%.1f s after the kill another manager took that write.", time.Since(killed).Seconds())
	running := func(out string) bool { return strings.Contains(out, "4/4") }
	if err := s.await(ctx, other.Name, running, "service", "ls"); err != nil {
		return err
	}
	for _, args := range [][]string{{"node", "ls"}, {"service", "ls"}, {"service", "ps", "web"}} {
		if err := s.skep(ctx, other.Name, args...); err != nil {
			return err
		}
	}
	s.say("%s is started again, and catches up.", leader.Name)
	return leader.Start(ctx)
}

// await runs a command until its output is as wanted.
func (s show) await(ctx context.Context, machine string, wanted func(string) bool, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		out, err := s.network.Machine(machine).Skep(ctx, args...)
		if err == nil && wanted(out) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for skep %s: %w: %w\n%s", strings.Join(args, " "), ctx.Err(), err, out)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// invite says what to try now.
func (s show) invite(program string) {
	s.say("The swarm is up. Try, in another terminal:")
	fmt.Fprintf(s.out, "\n  export SKEP_HOST=unix://%s\n", s.network.Machine("m2").Socket())
	for _, line := range []string{
		"node ls", "service ps web", "service logs -f web", "service scale web=6", "service update --env-add HELLO=bees web",
		"node promote w1", "swarm join-token --rotate worker", "service rm web",
	} {
		fmt.Fprintf(s.out, "  %s %s\n", program, line)
	}
	fmt.Fprintln(s.out, "\nCtrl-C ends it.")
}

// logTail is how much of each daemon's log a failure shows.
const logTail = 4 << 10

func (s show) logs() string {
	var out strings.Builder
	for _, m := range s.network.Machines() {
		text, err := os.ReadFile(m.LogFile())
		if err == nil {
			fmt.Fprintf(&out, "%s:\n%s\n", m.Name, text[max(0, len(text)-logTail):])
		}
	}
	return out.String()
}
