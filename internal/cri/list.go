package cri

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"npd-plugins/internal/plugin"
)

// codec is protobuf for requests and small replies. A list reply is walked
// item by item where it lies, in the buffers of the transport, and never
// decoded as a whole: decoding 10,000 items takes five times the CPU and
// memory (test/bench).
type codec struct{}

// Name is empty so that the content type of a call is application/grpc, as it
// is with gRPC's own codec. A name would be appended ("application/grpc+proto"),
// which CRI-O's multiplexer does not let in: it closes the connection.
func (codec) Name() string { return "" }

func (codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("cannot encode %T", v)
	}
	b, err := proto.Marshal(m)
	return mem.BufferSlice{mem.SliceBuffer(b)}, err
}

func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	switch v := v.(type) {
	case *listReply:
		return v.walk(data)
	case proto.Message:
		return proto.Unmarshal(data.Materialize(), v)
	}
	return fmt.Errorf("cannot decode into %T", v)
}

// listReply walks ListContainersResponse, ListPodSandboxResponse and their
// streaming forms, which all hold their items in field 1.
type listReply struct {
	visit func(item []byte) error // nil to count only
	list  List
}

const itemsTag = 1<<3 | uint64(protowire.BytesType)

var errTruncated = errors.New("truncated CRI list reply")

func (l *listReply) walk(data mem.BufferSlice) error {
	l.list = List{Bytes: data.Len()}
	r := data.Reader()
	defer r.Close()
	var item []byte
	for r.Remaining() > 0 {
		tag, err := binary.ReadUvarint(r)
		if err != nil {
			return errTruncated
		}
		n := uint64(0) // bytes of the value
		switch protowire.Type(tag & 7) {
		case protowire.VarintType:
			_, err = binary.ReadUvarint(r)
		case protowire.Fixed32Type:
			n = 4
		case protowire.Fixed64Type:
			n = 8
		case protowire.BytesType:
			n, err = binary.ReadUvarint(r)
		default:
			return errors.New("CRI list reply is no protobuf message")
		}
		if err != nil || n > uint64(r.Remaining()) {
			return errTruncated
		}
		if tag != itemsTag || l.visit == nil {
			r.Discard(int(n))
		} else {
			if uint64(cap(item)) < n {
				item = make([]byte, n+n/2)
			}
			item = item[:n]
			if _, err := io.ReadFull(r, item); err != nil {
				return errTruncated
			}
			if err := l.visit(item); err != nil {
				return err
			}
		}
		if tag == itemsTag {
			l.list.Items++
		}
	}
	return nil
}

// Sandbox is what checks need of a PodSandbox (cri-api runtime/v1 api.proto).
// The byte slices point into the reply.
type Sandbox struct {
	ID, Name, Namespace, UID []byte
	State                    runtime.PodSandboxState
	CreatedAt                time.Time // zero when the runtime does not say
	Bytes                    int       // encoded, with the item's own tag and length
}

func (s *Sandbox) decode(b []byte) error {
	*s = Sandbox{Bytes: protowire.SizeTag(1) + protowire.SizeBytes(len(b))}
	return eachField(b, func(n protowire.Number, v []byte, x uint64) error {
		switch n {
		case 1:
			s.ID = v
		case 2:
			return eachField(v, func(n protowire.Number, v []byte, _ uint64) error {
				switch n {
				case 1:
					s.Name = v
				case 2:
					s.UID = v
				case 3:
					s.Namespace = v
				}
				return nil
			})
		case 3:
			s.State = runtime.PodSandboxState(x)
		case 4:
			s.CreatedAt = created(x)
		}
		return nil
	})
}

// created reads a created_at field, in nanoseconds since 1970.
func created(x uint64) time.Time {
	if x == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(x))
}

// Container is what checks need of a Container (cri-api runtime/v1
// api.proto). The byte slices point into the reply.
type Container struct {
	ID, SandboxID, Name []byte
	State               runtime.ContainerState
	CreatedAt           time.Time // zero when the runtime does not say
	// From kubelet's labels; nil without them.
	PodUID, PodName, Namespace []byte
	Bytes                      int // encoded, with the item's own tag and length
}

// Pod names the pod of the container for a message, "" when kubelet's labels
// are missing.
func (c *Container) Pod() string {
	if len(c.PodName) == 0 {
		return ""
	}
	return "pod " + plugin.Safe(string(c.Namespace), 63) + "/" + plugin.Safe(string(c.PodName), 80)
}

// Labels of kubelet (pkg/kubelet/types/labels.go).
const (
	labelPodName   = "io.kubernetes.pod.name"
	LabelNamespace = "io.kubernetes.pod.namespace"
	LabelPodUID    = "io.kubernetes.pod.uid"
)

func (c *Container) decode(b []byte) error {
	*c = Container{Bytes: protowire.SizeTag(1) + protowire.SizeBytes(len(b))}
	return eachField(b, func(n protowire.Number, v []byte, x uint64) error {
		switch n {
		case 1:
			c.ID = v
		case 2:
			c.SandboxID = v
		case 3:
			return eachField(v, func(n protowire.Number, v []byte, _ uint64) error {
				if n == 1 {
					c.Name = v
				}
				return nil
			})
		case 6:
			c.State = runtime.ContainerState(x)
		case 7:
			c.CreatedAt = created(x)
		case 8:
			return c.label(v)
		}
		return nil
	})
}

func (c *Container) label(entry []byte) error {
	var key, value []byte
	err := eachField(entry, func(n protowire.Number, v []byte, _ uint64) error {
		switch n {
		case 1:
			key = v
		case 2:
			value = v
		}
		return nil
	})
	switch string(key) {
	case labelPodName:
		c.PodName = value
	case LabelNamespace:
		c.Namespace = value
	case LabelPodUID:
		c.PodUID = value
	}
	return err
}

// eachField visits the fields of an encoded message: the bytes of a
// length-delimited one, the number of a varint.
func eachField(b []byte, visit func(n protowire.Number, v []byte, x uint64) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		var v []byte
		var x uint64
		switch typ {
		case protowire.BytesType:
			v, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			x, n = protowire.ConsumeVarint(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := visit(num, v, x); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
