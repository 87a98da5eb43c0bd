package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/output"
	"github.com/skep-io/skep/cmd/skep/cli/progress"
	"github.com/skep-io/skep/internal/fault"
)

const (
	// profileSuffix ends the names of files with a learned profile.
	profileSuffix = ".seccomp.json"
	// learnTime is how long is learned unless told otherwise.
	learnTime = 10 * time.Minute
	// longestLearn is the most that managers record.
	longestLearn = 24 * time.Hour
	// restartTime is how long the restart of a service may take, beside that.
	restartTime = time.Hour
)

// learnFlags are those of `service seccomp learn`.
type learnFlags struct {
	duration       time.Duration
	output         string
	restart, quiet bool
}

func (p *program) serviceSeccomp() *cobra.Command {
	return group("seccomp", "Manage seccomp profiles of services", p.completed(serviceWords, p.seccompLearn()))
}

func (p *program) seccompLearn() *cobra.Command {
	var flags learnFlags
	cmd := &cobra.Command{
		Use: "learn [OPTIONS] SERVICE", Short: "Record which system calls a service makes, and write a minimal seccomp profile", Args: exactArgs(1),
		Long: "Record which system calls a service makes, and write a minimal seccomp profile.\n\n" +
			"The profile is that of the service, without the calls that none of its tasks made on any node. Ctrl-C ends the\n" +
			"recording early, and the profile is written all the same. Use the service while it is recorded, as widely as you can:\n" +
			"what it never did it will not be able to do. Restart it, too, for the calls with which it starts (--restart).\n\n" +
			"Apply the profile with 'skep service update --security-opt seccomp=FILE SERVICE'.",
	}
	set := cmd.Flags()
	set.DurationVar(&flags.duration, "for", learnTime, "How long to record (1s to 24h); with --restart, from its end on")
	set.StringVarP(&flags.output, "output", "o", "", `File to write, "-" for STDOUT (default SERVICE`+profileSuffix+")")
	set.BoolVar(&flags.restart, "restart", false, "Restart the service's tasks once they are recorded, as 'service update --force' does")
	set.BoolVarP(&flags.quiet, "quiet", "q", false, "Suppress progress output")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		answer, err := c.Control.GetService(ctx, &api.GetServiceRequest{Service: args[0]})
		if err != nil {
			return err
		}
		name := serviceName(answer.GetService())
		file := cmp.Or(flags.output, name+profileSuffix)
		out, err := p.newFile(file, "a learned profile")
		if err != nil {
			return err
		}
		result, err := p.learn(ctx, c, &flags, answer.GetService())
		if err == nil {
			_, err = out.Write(append(result.GetProfile(), '\n'))
		}
		if err = out.finish(err); err != nil {
			return err
		}
		return p.learned(result, name, file, flags.quiet)
	})
	return cmd
}

// learn records until the time is over or ctx ends, and returns what came of it.
func (p *program) learn(ctx context.Context, c *client.Client, flags *learnFlags, service *api.Service) (*api.LearnResult, error) {
	streamCtx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // Ctrl-C asks for the result
	defer cancel()
	duration := flags.duration
	if flags.restart && duration > 0 {
		duration = min(duration+restartTime, max(duration, longestLearn))
	}
	stream, err := c.Learning.LearnSeccomp(streamCtx)
	if err != nil {
		return nil, err
	}
	start := &api.LearnStart{Service: service.GetId(), Duration: durationpb.New(duration)}
	if err := stream.Send(&api.LearnSeccompRequest{Step: &api.LearnSeccompRequest_Start{Start: start}}); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	stop := sync.OnceFunc(func() {
		// What fails shows on the other way.
		_ = stream.Send(&api.LearnSeccompRequest{Step: &api.LearnSeccompRequest_Stop{Stop: &api.LearnStop{}}})
	})
	defer context.AfterFunc(ctx, stop)()
	var restart restart
	defer func() { p.warn(restart.end()) }()
	show := p.newLearnView(flags)
	for first := true; ; {
		answer, err := stream.Recv()
		if err != nil {
			return nil, learnError(ctx, err)
		}
		if result := answer.GetResult(); result != nil {
			show.end()
			return result, nil
		}
		if answer.GetProgress() == nil {
			continue // what a newer manager says
		}
		show.progress(answer.GetProgress())
		if first && flags.restart && ctx.Err() == nil {
			if err := p.restart(ctx, c, service, &restart, flags.duration, stop); err != nil {
				return nil, err
			}
		}
		first = false
	}
}

// learnError words the end of a stream without a result.
func learnError(ctx context.Context, err error) error {
	if errors.Is(err, io.EOF) {
		return fault.New(fault.Unavailable, "the manager ended the recording")
	}
	if ctx.Err() != nil && fault.KindOf(err) == fault.Unavailable {
		return progress.ErrInterrupted
	}
	return err
}

// restart is a restart of a service that is waited for in the background. The zero value is none.
type restart struct {
	cancel context.CancelFunc // or nil
	done   chan struct{}
	err    error // of the wait; set before done is closed
}

// end ends the wait, and returns what is odd about the restart.
func (r *restart) end() (warnings []string) {
	if r.cancel == nil {
		return nil
	}
	r.cancel()
	<-r.done
	if r.err == nil || errors.Is(r.err, progress.ErrInterrupted) || errors.Is(r.err, context.Canceled) {
		return nil
	}
	return []string{output.Printable("the service did not come back as it was: " + r.err.Error())}
}

// restart has all tasks of a service replaced, and calls stop some time after that has come to an end.
func (p *program) restart(ctx context.Context, c *client.Client, service *api.Service, r *restart, duration time.Duration, stop func()) error {
	answer, err := changeService(ctx, c, service.GetId(), func(spec *api.ServiceSpec) (*api.ServiceSpec, error) {
		spec.GetTask().ForceUpdate++
		return spec, nil
	})
	if err != nil {
		return fmt.Errorf("restart the service: %w", err)
	}
	ctx, r.cancel = context.WithCancel(ctx)
	r.done = make(chan struct{})
	go func() { // ends with ctx, for which end waits
		defer close(r.done)
		r.err = p.waitFor(ctx, c, answer.GetService(), true)
		select {
		case <-time.After(duration):
			stop()
		case <-ctx.Done():
		}
	}()
	return nil
}

// learned says what is in the profile and what is not.
func (p *program) learned(result *api.LearnResult, name, file string, quiet bool) error {
	got := result.GetProgress()
	p.warn(printableEach(result.GetWarnings()))
	for _, gap := range got.GetGaps() {
		p.warn([]string{output.Printable(fmt.Sprintf("node %s: %s", cmp.Or(gap.GetNodeHostname(), gap.GetNodeId()), gap.GetReason()))})
	}
	if quiet {
		return nil
	}
	fmt.Fprintf(p.err, "%d system calls of %d tasks, %d of them from the start\n", len(got.GetUsed()), got.GetTasks(), got.GetFromStart())
	if refused := got.GetRefused(); len(refused) > 0 {
		fmt.Fprintf(p.err, "Refused while learning, and not in the profile: %s\n", output.Printable(strings.Join(refused, ", ")))
	}
	if file == "-" {
		return nil
	}
	fmt.Fprintf(p.err, "Apply it with: skep service update --security-opt seccomp=%s %s\n", output.Printable(file), output.Printable(name))
	return nil
}

func printableEach(texts []string) []string {
	out := make([]string, len(texts))
	for i, text := range texts {
		out[i] = output.Printable(text)
	}
	return out
}

// learnView shows how far a recording is: in one line of a terminal, or else when tasks come.
type learnView struct {
	out            io.Writer
	quiet, live    bool
	tasks, started uint32
	told           bool
}

func (p *program) newLearnView(flags *learnFlags) *learnView {
	return &learnView{out: p.err, quiet: flags.quiet, live: p.opts.IsTerminal(p.err)}
}

func (v *learnView) progress(now *api.LearnProgress) {
	if v.quiet || !v.live && v.told && now.GetTasks() == v.tasks && now.GetFromStart() == v.started {
		return
	}
	v.told, v.tasks, v.started = true, now.GetTasks(), now.GetFromStart()
	before, after := "", "\n"
	if v.live {
		before, after = "\r\x1b[K", ""
	}
	fmt.Fprintf(v.out, "%srecording %d tasks, %d of them from the start: %d system calls, %d refused (Ctrl-C ends it)%s",
		before, now.GetTasks(), now.GetFromStart(), len(now.GetUsed()), len(now.GetRefused()), after)
}

func (v *learnView) end() {
	if v.live && !v.quiet && v.told {
		fmt.Fprintln(v.out)
	}
}
