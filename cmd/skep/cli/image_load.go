package cli

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/cmd/skep/cli/view"
	"github.com/skep-io/skep/internal/fault"
)

// chunk is the size of one message of an upload, in bytes: far below gRPC's limit, and large enough to keep a disk busy.
const chunk = 1 << 20

func (p *program) imageLoad() *cobra.Command {
	var input string
	cmd := &cobra.Command{
		Use: "load [OPTIONS] [FILE|DIR|-]", Short: "Load an image from a tar archive, an OCI layout folder or STDIN",
		Args: rangeArgs(0, 1),
	}
	cmd.Flags().StringVarP(&input, "input", "i", "", "Read from tar archive file, instead of STDIN")
	// Docker's flag hides the progress only, and there is none here.
	cmd.Flags().BoolP("quiet", "q", false, "Suppress the load output")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		if len(args) == 1 {
			if input != "" {
				return &usageError{command: cmd, err: errors.New("the archive is named twice: leave out --input or the argument")}
			}
			input = args[0]
		}
		archive, err := p.openArchive(ctx, input)
		if err != nil {
			return err
		}
		defer archive.Close()
		images, err := sendImage(ctx, c, archive, input)
		if err != nil {
			return err
		}
		for _, image := range images {
			if err := p.writeLoaded(image); err != nil {
				return err
			}
		}
		return nil
	})
	return cmd
}

func (p *program) writeLoaded(image *api.ImageInfo) error {
	if len(image.GetReferences()) == 0 {
		return p.printf("Loaded image ID: %s\n", image.GetDigest())
	}
	for _, ref := range image.GetReferences() {
		if err := p.printf("Loaded image: %s\n", view.Familiar(ref)); err != nil {
			return err
		}
	}
	return nil
}

// openArchive opens what [program.openTar] does, and a folder as a tar.
func (p *program) openArchive(ctx context.Context, name string) (io.ReadCloser, error) {
	if stat, err := os.Stat(name); err == nil && stat.IsDir() {
		return tarFolder(name)
	}
	return p.openTar(ctx, name)
}

// openTar opens a tar: a file, or the input stream for - and "".
func (p *program) openTar(ctx context.Context, name string) (io.ReadCloser, error) {
	if name == "" || name == "-" {
		if p.opts.IsTerminal(p.in) {
			return nil, fault.New(fault.Invalid, "requested load from stdin, but stdin is a terminal: "+
				"name an archive or a folder, or pipe one in")
		}
		return io.NopCloser(p.input(ctx)), nil
	}
	return flagvalue.OpenFile(name)
}

// tarFolder streams the regular files of a folder as a tar. The caller closes it, which ends the goroutine that writes.
func tarFolder(name string) (io.ReadCloser, error) {
	root, err := os.OpenRoot(name)
	if err != nil {
		return nil, flagvalue.FileFault(err)
	}
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.CloseWithError(writeTar(w, root)) // never fails
	}()
	return &folderTar{PipeReader: r, root: root, done: done}, nil
}

// folderTar is a folder that is read as a tar.
type folderTar struct {
	*io.PipeReader
	root *os.Root
	done chan struct{}
}

// Close stops the writer, waits for it, and closes the folder.
func (f *folderTar) Close() error {
	_ = f.PipeReader.Close() // never fails
	<-f.done
	return f.root.Close()
}

// writeTar writes the regular files below root. Links are refused: an OCI layout has none, and one could leave the folder.
func writeTar(w io.Writer, root *os.Root) error {
	archive := tar.NewWriter(w)
	err := fs.WalkDir(root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			return nil
		case !entry.Type().IsRegular():
			return fault.New(fault.Invalid, "%s is no regular file: an image's folder holds files and folders only",
				filepath.Join(root.Name(), name))
		}
		return addFile(archive, root, name)
	})
	return errors.Join(err, archive.Close())
}

func addFile(archive *tar.Writer, root *os.Root, name string) error {
	file, err := root.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	stat, err := file.Stat()
	if err != nil {
		return err
	}
	header := &tar.Header{Typeflag: tar.TypeReg, Name: filepath.ToSlash(name), Size: stat.Size(), Mode: 0o644}
	if err := archive.WriteHeader(header); err != nil {
		return fmt.Errorf("add %s: %w", name, err)
	}
	if _, err := io.CopyN(archive, file, stat.Size()); err != nil {
		return fmt.Errorf("add %s: %w", name, err)
	}
	return nil
}

// sendImage uploads the tar of a name and returns the images that the daemon found in it.
func sendImage(ctx context.Context, c *client.Client, archive io.Reader, name string) ([]*api.ImageInfo, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the upload when reading the archive fails
	stream, err := c.Daemon.LoadImage(ctx)
	if err != nil {
		return nil, err
	}
	empty, err := upload(archive, func(data []byte) error { return stream.Send(&api.LoadImageRequest{Data: data}) })
	if err != nil {
		return nil, err
	}
	if empty && name != "" && name != "-" {
		return nil, fault.New(fault.Invalid, "%s is empty: name the tar of an image", name)
	}
	if empty {
		return nil, fault.New(fault.Invalid, "requested load from stdin, but stdin is empty")
	}
	answer, err := stream.CloseAndRecv()
	return answer.GetImages(), err
}

// upload sends what r holds in chunks, and reports whether that was nothing. It ends without an error when the receiver
// wants no more: the receiver's answer says why.
func upload(r io.Reader, send func([]byte) error) (empty bool, err error) {
	empty = true
	for {
		buffer := make([]byte, chunk)
		n, readErr := io.ReadFull(r, buffer)
		if n > 0 {
			empty = false
			if err := send(buffer[:n]); errors.Is(err, io.EOF) {
				return false, nil
			} else if err != nil {
				return false, err
			}
		}
		switch {
		case errors.Is(readErr, io.EOF), errors.Is(readErr, io.ErrUnexpectedEOF):
			return empty, nil
		case readErr != nil:
			return empty, fmt.Errorf("read archive: %w", readErr)
		}
	}
}

func (p *program) imageImport() *cobra.Command {
	return &cobra.Command{
		Use: "import file|- REPOSITORY[:TAG]", Short: "Import the contents from a tarball to create a filesystem image",
		Args: exactArgs(2),
		RunE: p.connected(func(ctx context.Context, c *client.Client, args []string) error {
			archive, err := p.openTar(ctx, args[0])
			if err != nil {
				return err
			}
			defer archive.Close()
			digest, err := sendRootfs(ctx, c, archive, args[1])
			if err != nil {
				return err
			}
			return p.printf("%s\n", digest)
		}),
	}
}

// sendRootfs uploads a root file system and returns the digest of the image that the daemon made of it.
func sendRootfs(ctx context.Context, c *client.Client, archive io.Reader, reference string) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.Daemon.ImportImage(ctx)
	if err != nil {
		return "", err
	}
	empty, err := upload(archive, func(data []byte) error {
		err := stream.Send(&api.ImportImageRequest{Reference: reference, Data: data})
		reference = ""
		return err
	})
	if err != nil {
		return "", err
	}
	if empty {
		return "", fault.New(fault.Invalid, "the archive is empty: give it the tar of a root file system")
	}
	answer, err := stream.CloseAndRecv()
	return answer.GetImage().GetDigest(), err
}
