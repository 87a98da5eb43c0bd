package cli_test

import (
	"errors"
	"io"

	"github.com/skep-io/skep/api"
)

// withTasks says how the next streams of tasks are served.
func (f *fake) withTasks(connect func(api.Tasks_ConnectTaskServer) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.connect = connect
}

func (f *fake) ConnectTask(stream api.Tasks_ConnectTaskServer) error {
	f.mu.Lock()
	connect := f.connect
	f.mu.Unlock()
	return connect(stream)
}

func connected() *api.ConnectTaskResponse {
	return &api.ConnectTaskResponse{Output: &api.ConnectTaskResponse_Connected{Connected: &api.TaskConnected{TaskId: "task1"}}}
}

func onTerminal() *api.ConnectTaskResponse {
	return &api.ConnectTaskResponse{Output: &api.ConnectTaskResponse_Connected{Connected: &api.TaskConnected{TaskId: "task1", Terminal: true}}}
}

func stdout(text []byte) *api.ConnectTaskResponse {
	return &api.ConnectTaskResponse{Output: &api.ConnectTaskResponse_Stdout{Stdout: text}}
}

func stderr(text string) *api.ConnectTaskResponse {
	return &api.ConnectTaskResponse{Output: &api.ConnectTaskResponse_Stderr{Stderr: []byte(text)}}
}

func disconnected(code int32) *api.ConnectTaskResponse {
	return &api.ConnectTaskResponse{Output: &api.ConnectTaskResponse_Disconnected{Disconnected: &api.TaskDisconnected{ExitCode: code}}}
}

// sends answers a stream with all of these.
func sends(out ...*api.ConnectTaskResponse) func(api.Tasks_ConnectTaskServer) error {
	return func(stream api.Tasks_ConnectTaskServer) error {
		for _, r := range out {
			if err := stream.Send(r); err != nil {
				return err
			}
		}
		return nil
	}
}

// input is what a stream's client sends, to its end.
func input(stream api.Tasks_ConnectTaskServer) ([]byte, error) {
	var out []byte
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) || r.GetEnd() != nil {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		out = append(out, r.GetData()...)
	}
}
