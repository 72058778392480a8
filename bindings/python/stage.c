/* stage.c: Stage, the platform for tests. testing.py gives it its friendly face. */
#include "native.h"

typedef struct cfpy_stage {
    PyObject_HEAD
    cf_stage *stage;
} cfpy_stage;

cf_stage *cfpy_stage_of(PyObject *stage) { return ((cfpy_stage *)stage)->stage; }

static PyObject *stage_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    if (PyTuple_Size(args) != 0 || (kwargs != NULL && PyDict_Size(kwargs) != 0)) {
        PyErr_SetString(PyExc_TypeError, "Stage() takes no arguments");
        return NULL;
    }
    allocfunc   alloc = (allocfunc)(uintptr_t)PyType_GetSlot(type, Py_tp_alloc);
    cfpy_stage *self = (cfpy_stage *)alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->stage = cf_stage_new();
    if (self->stage == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void stage_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    if (((cfpy_stage *)object)->stage != NULL)
        cf_stage_free(((cfpy_stage *)object)->stage);
    freefunc release = (freefunc)(uintptr_t)PyType_GetSlot(type, Py_tp_free);
    release(object);
    Py_DECREF(type);
}

/* Seconds of either sign as milliseconds, within a range that no clock overflows. */
static int milliseconds(PyObject *object, double least, int64_t *ms)
{
    double seconds = PyFloat_AsDouble(object);
    if (seconds == -1.0 && PyErr_Occurred())
        return -1;
    if (!(seconds >= least && seconds <= 1e11)) {
        PyErr_SetString(PyExc_ValueError, "seconds are out of range");
        return -1;
    }
    double exact = seconds * 1000.0;
    *ms = (int64_t)(exact < 0 ? exact - 0.5 : exact + 0.5);
    return 0;
}

PyDoc_STRVAR(advance_doc, "advance($self, seconds, /)\n--\n\nMoves both clocks on. What falls due meanwhile has expired.");
static PyObject *stage_advance(PyObject *self, PyObject *seconds)
{
    int64_t ms;
    if (milliseconds(seconds, 0, &ms) < 0)
        return NULL;
    cf_stage_advance(cfpy_stage_of(self), ms);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(step_wall_doc, "step_wall($self, seconds, /)\n--\n\n"
                            "Steps the wall clock alone, forwards or (negative) back: somebody set the machine's clock.");
static PyObject *stage_step_wall(PyObject *self, PyObject *seconds)
{
    int64_t ms;
    if (milliseconds(seconds, -1e11, &ms) < 0)
        return NULL;
    cf_stage_step_wall(cfpy_stage_of(self), ms);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(wall_doc, "wall_ms($self, /)\n--\n\nThe wall clock: milliseconds since 1970-01-01 UTC.");
static PyObject *stage_wall(PyObject *self, PyObject *unused)
{
    (void)unused;
    return PyLong_FromLongLong(cf_stage_wall_ms(cfpy_stage_of(self)));
}

PyDoc_STRVAR(fail_allocation_doc, "fail_allocation($self, nth, for_good=False)\n--\n\n"
                                  "The nth allocation of the core from now (1 is the next) fails, or it and all after it; 0: none does.");
static PyObject *stage_fail_allocation(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char       *names[] = {(char *)"nth", (char *)"for_good", NULL};
    unsigned long long nth;
    int                for_good = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "K|p:fail_allocation", names, &nth, &for_good))
        return NULL;
    cf_stage_fail_allocation(cfpy_stage_of(self), nth, for_good != 0);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(fail_syscall_doc, "fail_syscall($self, nth, errno)\n--\n\n"
                               "The nth fallible system call of the core from now fails with errno, once; 0: none does.");
static PyObject *stage_fail_syscall(PyObject *self, PyObject *args, PyObject *kwargs)
{
    static char       *names[] = {(char *)"nth", (char *)"errno", NULL};
    unsigned long long nth;
    int                number;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Ki:fail_syscall", names, &nth, &number))
        return NULL;
    cf_stage_fail_syscall(cfpy_stage_of(self), nth, number);
    Py_RETURN_NONE;
}

static PyObject *stage_failed(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(cf_stage_failed(cfpy_stage_of(self)));
}

static PyObject *stage_blocks(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromLongLong(cf_stage_blocks(cfpy_stage_of(self)));
}

static PyMethodDef stage_methods[] = {
    {"advance", stage_advance, METH_O, advance_doc},
    {"step_wall", stage_step_wall, METH_O, step_wall_doc},
    {"wall_ms", stage_wall, METH_NOARGS, wall_doc},
    {"fail_allocation", CFPY_METHOD(stage_fail_allocation), METH_VARARGS | METH_KEYWORDS, fail_allocation_doc},
    {"fail_syscall", CFPY_METHOD(stage_fail_syscall), METH_VARARGS | METH_KEYWORDS, fail_syscall_doc},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef stage_getset[] = {
    {"failed", stage_failed, NULL, "Whether what was last asked to fail has failed.", NULL},
    {"blocks", stage_blocks, NULL, "Blocks that the core has allocated and not yet released: 0 when every store is closed.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot stage_slots[] = {
    {Py_tp_doc, (void *)(uintptr_t) "The native part of counterfoil.testing.Stage."},
    {Py_tp_new, CFPY_SLOT(stage_new)},
    {Py_tp_dealloc, CFPY_SLOT(stage_dealloc)},
    {Py_tp_methods, stage_methods},
    {Py_tp_getset, stage_getset},
    {0, NULL},
};

PyType_Spec cfpy_stage_spec = {
    .name = "counterfoil._native.Stage",
    .basicsize = sizeof(cfpy_stage),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE,
    .slots = stage_slots,
};
