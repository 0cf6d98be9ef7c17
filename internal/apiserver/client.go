package apiserver

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Client calls one kube-apiserver.
type Client struct {
	server *url.URL
	http   *http.Client
	token  string
}

// Node is what is read of a node.
type Node struct {
	Name       string
	Version    string // of the object (resourceVersion)
	Conditions []Condition
}

// Condition is a NodeCondition.
type Condition struct {
	Type   string `json:"type"`
	Status string `json:"status"`
	Reason string `json:"reason"`
}

// StatusError is an answer of kube-apiserver that is not the one asked for.
type StatusError struct {
	Code    int // of HTTP
	Message string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("kube-apiserver says %d: %s", e.Code, e.Message)
}

// object is a node as kube-apiserver writes it.
type object struct {
	Metadata struct {
		Name            string `json:"name"`
		ResourceVersion string `json:"resourceVersion"`
	} `json:"metadata"`
	Status struct {
		Conditions []Condition `json:"conditions"`
	} `json:"status"`
}

func (o object) node() Node {
	return Node{o.Metadata.Name, o.Metadata.ResourceVersion, o.Status.Conditions}
}

// Node returns a node.
func (c *Client) Node(ctx context.Context, name string) (Node, error) {
	var o object
	err := c.call(ctx, http.MethodGet, "/api/v1/nodes/"+url.PathEscape(name), nil, nil, &o)
	return o.node(), err
}

// page is how many nodes one answer holds, some 20 KB each.
const page = 250

// Nodes returns all nodes.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	var all []Node
	for next := ""; ; {
		var list struct {
			Metadata struct {
				Continue string `json:"continue"`
			} `json:"metadata"`
			Items []object `json:"items"`
		}
		query := url.Values{"limit": {strconv.Itoa(page)}}
		if next != "" {
			query.Set("continue", next)
		}
		if err := c.call(ctx, http.MethodGet, "/api/v1/nodes", query, nil, &list); err != nil {
			return nil, err
		}
		for _, o := range list.Items {
			all = append(all, o.node())
		}
		if next = list.Metadata.Continue; next == "" {
			return all, nil
		}
	}
}

// RemoveConditions removes conditions from a node, if it is still as it was read; if not, the error is a StatusError with
// http.StatusConflict. With dryRun kube-apiserver does all but keep the result. It returns the node as it is then.
func (c *Client) RemoveConditions(ctx context.Context, node Node, types []string, dryRun bool) (Node, error) {
	query := url.Values{"fieldManager": {"npdctl"}}
	if dryRun {
		query.Set("dryRun", "All")
	}
	var o object
	err := c.call(ctx, http.MethodPatch, "/api/v1/nodes/"+url.PathEscape(node.Name)+"/status", query, Removal(types, node.Version), &o)
	return o.node(), err
}

// Removal is the strategic merge patch of a node's status that removes conditions. With a version it only applies to a node of that
// version.
func Removal(types []string, version string) []byte {
	type deletion struct {
		Patch string `json:"$patch"`
		Type  string `json:"type"`
	}
	type metadata struct {
		ResourceVersion string `json:"resourceVersion"`
	}
	var patch struct {
		Metadata *metadata `json:"metadata,omitempty"`
		Status   struct {
			Conditions []deletion `json:"conditions"`
		} `json:"status"`
	}
	if version != "" {
		patch.Metadata = &metadata{version}
	}
	for _, t := range types {
		patch.Status.Conditions = append(patch.Status.Conditions, deletion{"delete", t})
	}
	b, _ := json.Marshal(patch) // strings can always be encoded
	return b
}

const (
	tries     = 6                // of a call that kube-apiserver puts off
	longest   = 10 * time.Second // between two of them
	maxReason = 64 << 10         // bytes read of an answer that is an error
)

// call sends a patch, or nothing, and reads the answer into reply. A busy server says 429, and when to come again.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, patch []byte, reply any) error {
	for n := 1; ; n++ {
		wait, err := c.once(ctx, method, path, query, patch, reply)
		if wait == 0 || n == tries {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(wait, longest)):
		}
	}
}

// once is one try, and how long to wait before the next; 0 when there shall be none.
func (c *Client) once(ctx context.Context, method, path string, query url.Values, patch []byte, reply any) (wait time.Duration, err error) {
	to := c.server.JoinPath(path)
	to.RawQuery = query.Encode()
	request, err := http.NewRequestWithContext(ctx, method, to.String(), bytes.NewReader(patch))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "npdctl")
	if patch != nil {
		request.Header.Set("Content-Type", "application/strategic-merge-patch+json")
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	if response.StatusCode == http.StatusOK {
		if err := json.NewDecoder(response.Body).Decode(reply); err != nil {
			return 0, fmt.Errorf("read the answer to %s %s: %w", method, path, err)
		}
		return 0, nil
	}
	if response.StatusCode == http.StatusTooManyRequests {
		seconds, _ := strconv.Atoi(response.Header.Get("Retry-After"))
		wait = time.Duration(max(seconds, 1)) * time.Second
	}
	return wait, statusError(response)
}

func statusError(response *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(response.Body, maxReason))
	var status struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(text, &status) != nil || status.Message == "" {
		status.Message = http.StatusText(response.StatusCode)
	}
	return &StatusError{response.StatusCode, status.Message}
}
