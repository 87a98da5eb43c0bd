package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// options are the command line.
type options struct {
	listen     string
	every      time.Duration
	exit       int
	after      time.Duration
	fillMemory int64
	forks      int
	note       string
	sleeper    bool
}

func main() {
	opts, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "skep-hello:", err)
		os.Exit(2)
	}
	if opts.sleeper {
		io.Copy(io.Discard, os.Stdin) // until the parent is gone
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	code, err := run(ctx, os.Stdout, opts)
	if err != nil {
		fmt.Fprintln(os.Stderr, "skep-hello:", err)
		code = 1
	}
	os.Exit(code)
}

// parse reads the command line. SKEP_HELLO_LISTEN changes the default of
// --listen, for services that cannot change the command.
func parse(args []string, output io.Writer) (options, error) {
	listen := ":8080"
	if env, ok := os.LookupEnv("SKEP_HELLO_LISTEN"); ok {
		listen = env
	}
	var o options
	var fill string
	set := flag.NewFlagSet("skep-hello", flag.ContinueOnError)
	set.SetOutput(output)
	set.StringVar(&o.listen, "listen", listen, "serve the report over HTTP on this `address`; off serves nothing")
	set.DurationVar(&o.every, "every", 30*time.Second, "log a line each `interval`; 0 logs none")
	set.IntVar(&o.exit, "exit", 0, "with --after: exit with this `status`")
	set.DurationVar(&o.after, "after", 0, "exit by oneself after this `time`; 0 never does")
	set.StringVar(&fill, "fill-memory", "", "allocate and touch this `size`, such as 64M; at most 16G")
	set.IntVar(&o.forks, "forks", 0, "start this `number` of child processes; at most 10000")
	set.StringVar(&o.note, "note", "", "append a line to this `file`, and say how many there are")
	set.BoolVar(&o.sleeper, "sleeper", false, "be one of those children")
	if err := set.Parse(args); err != nil {
		return o, err
	}
	if set.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	if o.every < 0 || o.after < 0 || o.exit < 0 || o.exit > 255 || o.forks < 0 || o.forks > maxForks {
		return o, fmt.Errorf("a negative or too large number; see --help")
	}
	if fill != "" {
		var err error
		if o.fillMemory, err = parseSize(fill); err != nil {
			return o, err
		}
	}
	return o, nil
}

// run reports, misbehaves and serves until ctx ends or --after passed, and
// returns the exit status.
func run(ctx context.Context, out io.Writer, o options) (int, error) {
	started := time.Now()
	io.WriteString(out, report(machine{root: "/"}))
	if o.fillMemory > 0 {
		held := fillMemory(out, o.fillMemory)
		defer held()
	}
	if o.forks > 0 {
		release := forks(out, o.forks)
		defer release()
	}
	if o.note != "" {
		note(out, o.note)
	}
	if o.listen != "off" {
		closeServer, err := serve(out, o.listen)
		if err != nil {
			return 1, err
		}
		defer closeServer()
	}
	return wait(ctx, out, o, started), nil
}

// wait logs a line each interval.
func wait(ctx context.Context, out io.Writer, o options, started time.Time) int {
	var tick, end <-chan time.Time
	if o.every > 0 {
		ticker := time.NewTicker(o.every)
		defer ticker.Stop()
		tick = ticker.C
	}
	if o.after > 0 {
		timer := time.NewTimer(o.after)
		defer timer.Stop()
		end = timer.C
	}
	for n := 1; ; n++ {
		select {
		case <-tick:
			fmt.Fprintf(out, "tick: %d, up %s\n", n, time.Since(started).Round(time.Millisecond))
		case <-end:
			fmt.Fprintf(out, "exit: %d, after %s\n", o.exit, o.after)
			return o.exit
		case <-ctx.Done():
			fmt.Fprintln(out, "exit: 0, on a signal")
			return 0
		}
	}
}

// serve answers every HTTP request with a fresh report until it is closed.
func serve(out io.Writer, address string) (closeServer func(), err error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("serve HTTP: %w; use --listen ADDRESS or --listen off", err)
	}
	server := &http.Server{
		ReadHeaderTimeout: 5 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			io.WriteString(w, report(machine{root: "/"}))
		}),
	}
	fmt.Fprintf(out, "http: serving on %s\n", listener.Addr())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintf(out, "http: %v\n", err)
		}
	}()
	return func() {
		server.Close()
		<-done
	}, nil
}

// parseSize reads a number of bytes with a suffix K, M or G, in powers of 1024.
func parseSize(s string) (int64, error) {
	var n int64
	var suffix string
	if _, err := fmt.Sscanf(s, "%d%s", &n, &suffix); err != nil && n == 0 {
		return 0, fmt.Errorf("size %q: write a number and K, M or G", s)
	}
	shift, ok := map[string]uint{"": 0, "K": 10, "M": 20, "G": 30}[strings.ToUpper(suffix)]
	if !ok || n <= 0 || n > maxFill>>shift {
		return 0, fmt.Errorf("size %q: write a number and K, M or G, at most 16G", s)
	}
	return n << shift, nil
}
