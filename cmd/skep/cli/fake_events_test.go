package cli_test

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// WatchEvents sends two events of before, and one more that says what was asked for. After 9 the stream breaks, and before 5 nothing is kept.
func (f *fake) WatchEvents(r *api.WatchEventsRequest, stream grpc.ServerStreamingServer[api.WatchEventsResponse]) error {
	if r.GetAfter() == "4" {
		return fault.New(fault.Exhausted, "the events after 4 are not kept any more")
	}
	if err := stream.Send(&api.WatchEventsResponse{Position: "5", CompleteSince: timestamppb.New(born())}); err != nil {
		return err
	}
	var asked []string
	for _, filter := range r.GetFilters() {
		asked = append(asked, filter.GetKey()+"="+strings.Join(filter.GetValues(), "|"))
	}
	said := fmt.Sprintf("after %q, since %v, until %v, %s", r.GetAfter(), seconds(r.GetSince()), seconds(r.GetUntil()), strings.Join(asked, " "))
	err := stream.Send(&api.WatchEventsResponse{Position: "7.1", Events: []*api.Event{
		{
			Cursor: "6.1", Index: 6, Time: timestamppb.New(born()), Type: "service", Action: "create", ActorId: "svc1",
			Attributes: map[string]string{"name": "web"}, Labels: map[string]string{"tier": "front", "name": "forged"},
		},
		{
			Cursor: "7.1", Index: 7, Time: timestamppb.New(born().Add(1500 * time.Millisecond)), Type: "task", Action: "failed", ActorId: "task1",
			Attributes: map[string]string{"name": "web.1", "error": "odd\x1b[2Jthing", "asked": said},
		},
	}})
	if err == nil && r.GetAfter() == "9" {
		return fault.New(fault.Unavailable, "the manager stops")
	}
	return err
}

// seconds is how long after born a time is, or - for none.
func seconds(t *timestamppb.Timestamp) string {
	if t == nil {
		return "-"
	}
	return t.AsTime().Sub(born()).String()
}
