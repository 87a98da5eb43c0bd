package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/filetree"
)

// copyFlags are those of `cp`.
type copyFlags struct {
	archive, follow, quiet bool
}

const copyHelp = `Copy files/folders between a task and the local filesystem

TASK is a task's id, the beginning of one, or SERVICE.SLOT. It must run, and may be paused.
Use '-' as the source to read a tar archive from stdin and extract it to a directory in a task.
Use '-' as the destination to stream a tar archive of what is in a task to stdout.
A local path with a colon needs a slash before it: ./file:name.`

func (p *program) copyCommand() *cobra.Command {
	var flags copyFlags
	cmd := &cobra.Command{
		Use:   "cp [OPTIONS] TASK:SRC_PATH DEST_PATH|-\n       skep cp [OPTIONS] SRC_PATH|- TASK:DEST_PATH",
		Short: "Copy files/folders between a task and the local filesystem", Long: copyHelp, Args: exactArgs(2),
	}
	set := cmd.Flags()
	set.BoolVarP(&flags.archive, "archive", "a", false, "Archive mode (copy all uid/gid information)")
	set.BoolVarP(&flags.follow, "follow-link", "L", false, "Always follow symbol link in SRC_PATH")
	set.BoolVarP(&flags.quiet, "quiet", "q", false, "Say nothing about success. It is so, too, if stderr is no terminal")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		from, to := splitCopyArg(args[0]), splitCopyArg(args[1])
		switch {
		case from.task != "" && to.task != "":
			return fault.New(fault.Invalid, "copying between tasks is not supported: copy to this machine first")
		case from.task == "" && to.task == "":
			return fault.New(fault.Invalid, "must specify at least one task: write one of the paths as TASK:PATH")
		case from.path == "" || to.path == "":
			return fault.New(fault.Invalid, "a path is empty: write TASK:/ for the whole of a task")
		case from.task != "":
			return p.copyFrom(ctx, c, from, to.path, flags)
		default:
			return p.copyTo(ctx, c, from.path, to, flags)
		}
	})
	return cmd
}

// copyArg is one end of a copy; task is "" for this machine.
type copyArg struct{ task, path string }

// splitCopyArg reads TASK:PATH, or a local path: what begins with a slash or a dot is always one.
func splitCopyArg(arg string) copyArg {
	task, path, found := strings.Cut(arg, ":")
	if !found || filepath.IsAbs(arg) || strings.HasPrefix(task, ".") || strings.Contains(task, "/") {
		return copyArg{path: arg}
	}
	return copyArg{task: task, path: path}
}

// copyFrom copies from a task to a path of this machine.
func (p *program) copyFrom(ctx context.Context, c *client.Client, from copyArg, to string, flags copyFlags) error {
	ask := &api.CopyFrom{Path: from.path, FollowLink: flags.follow}
	first := &api.ConnectTaskRequest{Task: from.task, Input: &api.ConnectTaskRequest_CopyFrom{CopyFrom: ask}}
	if to == "-" {
		if p.opts.IsTerminal(p.out) {
			return fault.New(fault.Invalid, "a tar archive is nothing for a terminal: redirect stdout, or name a file")
		}
		return p.transfer(ctx, c, first, p.out, nil)
	}
	d, err := filetree.Open(to)
	if err != nil {
		return local(err)
	}
	defer d.Close()
	var counts filetree.Counts
	r, w := io.Pipe()
	unpacked := make(chan error, 1)
	go func() {
		var err error
		counts, err = filetree.Unpack(r, d, filetree.Options{Owner: flags.archive, Warn: p.leftOut})
		r.CloseWithError(errors.Join(err, io.ErrClosedPipe)) // nobody reads any more
		unpacked <- err
	}()
	err = p.transfer(ctx, c, first, w, nil)
	w.CloseWithError(err) // of nil, it is the end
	if failed := <-unpacked; failed != nil && (err == nil || errors.Is(err, io.ErrClosedPipe)) {
		return local(failed)
	}
	if err != nil {
		return err
	}
	p.copied(counts, to, flags)
	return nil
}

// copyTo copies a path of this machine to a task.
func (p *program) copyTo(ctx context.Context, c *client.Client, from string, to copyArg, flags copyFlags) error {
	ask := &api.CopyTo{Path: to.path, Archive: from == "-", KeepOwner: flags.archive}
	first := &api.ConnectTaskRequest{Task: to.task, Input: &api.ConnectTaskRequest_CopyTo{CopyTo: ask}}
	counted := make(chan filetree.Counts, 1)
	err := p.transfer(ctx, c, first, io.Discard, func(w io.Writer) error {
		if from == "-" {
			_, err := io.CopyBuffer(w, p.in, make([]byte, inputChunk))
			return err
		}
		whole := bufio.NewWriterSize(w, inputChunk) // a tar stream is written in small pieces
		packer := filetree.NewPacker(whole, p.leftOut)
		err := filetree.PackPath(packer, from, flags.follow)
		if err == nil {
			err = packer.Close()
		}
		if err == nil {
			err = whole.Flush()
		}
		counted <- packer.Counts
		return local(err)
	})
	if err == nil && from != "-" {
		p.copied(<-counted, to.task+":"+to.path, flags)
	}
	return err
}

// transfer makes the call: it writes what comes to out, and sends what send writes, unless that is nil.
func (p *program) transfer(ctx context.Context, c *client.Client, first *api.ConnectTaskRequest, out io.Writer, send func(io.Writer) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.Tasks.ConnectTask(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(first); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	s := &taskSession{send: stream.Send, out: out, err: plain{p.err}, cancel: cancel}
	if _, err := stream.Recv(); err != nil { // that it has begun
		return err
	}
	failed := make(chan error, 1)
	go func() { // may be reading from a terminal still when this returns
		if send != nil {
			if err := send(inputWriter{s}); err != nil {
				failed <- err
				if !errors.Is(err, errNotSent) {
					cancel()
				}
				return
			}
		}
		_ = s.put(&api.ConnectTaskRequest{Input: &api.ConnectTaskRequest_End{End: &api.EndOfInput{}}}) // receive knows why not
	}()
	_, err = s.receive(stream.Recv)
	select {
	case failed := <-failed:
		if !errors.Is(failed, errNotSent) {
			return failed
		}
	default:
	}
	return err
}

// errNotSent is returned when the stream has ended. Its other way knows why.
var errNotSent = errors.New("the stream has ended")

// inputWriter sends what is written as input.
type inputWriter struct{ s *taskSession }

func (w inputWriter) Write(text []byte) (int, error) {
	for at := 0; at < len(text); at += inputChunk {
		part := append([]byte(nil), text[at:min(at+inputChunk, len(text))]...)
		if w.s.put(&api.ConnectTaskRequest{Input: &api.ConnectTaskRequest_Data{Data: part}}) != nil {
			return at, errNotSent
		}
	}
	return len(text), nil
}

// plain takes from texts what a terminal would take as a command: names of files are a container's to choose.
type plain struct{ to io.Writer }

func (w plain) Write(text []byte) (int, error) {
	safe := strings.Map(func(r rune) rune {
		if r != '\n' && !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, string(text))
	_, err := io.WriteString(w.to, safe)
	return len(text), err
}

// leftOut tells what a copy has not.
func (p *program) leftOut(text string) { fmt.Fprintln(p.err, "warning:", text) }

// copied says that all was copied, to a person.
func (p *program) copied(n filetree.Counts, to string, flags copyFlags) {
	if !flags.quiet && p.opts.IsTerminal(p.err) {
		fmt.Fprintf(p.err, "Successfully copied %s to %s\n", units.HumanSize(float64(n.Bytes)), to)
	}
}

// local gives an error of this machine's files its kind.
func local(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, filetree.ErrRule), errors.Is(err, filetree.ErrStream):
		return fault.Wrap(fault.Invalid, err)
	case errors.Is(err, filetree.ErrLimit):
		return fault.Wrap(fault.Exhausted, err)
	case errors.Is(err, fs.ErrNotExist):
		return fault.Wrap(fault.NotFound, err)
	case errors.Is(err, errNotSent):
		return err
	}
	return fault.Wrap(fault.Precondition, err)
}
